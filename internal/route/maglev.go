package route

import (
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// client is who connects, as far as balancing by client is concerned: an application's own virtual address, which
// outlives it, or its id if it has none.
type client struct {
	addr netip.Addr
	app  ax.AppID
}

// client tells who makes a flow. Applications on their node's address are not one client.
func (s *Snapshot) client(f ax.Flow) client {
	a := plain(f.Client)
	if !a.IsValid() {
		return client{app: f.App}
	}
	if entry, known := s.addrs.get(hashAddr(a), a); known && len(entry.nodes) > 0 {
		return client{app: f.App}
	}
	return client{addr: a}
}

// hash is the same on every node and after every restart.
func (c client) hash() uint64 {
	if !c.addr.IsValid() {
		return stableHash(fnvOffset, string(c.app))
	}
	b := c.addr.As16()
	return stableHash(fnvOffset, b[:])
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// stableHash is FNV-1a with the finalizer of MurmurHash3, without which its low bits depend on few bits of the input.
// Seeds make independent hashes.
func stableHash[T string | []byte](seed uint64, in T) uint64 {
	h := seed
	for i := range len(in) {
		h = (h ^ uint64(in[i])) * fnvPrime
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

const (
	// maglevSize is the length of every table, whatever it holds: with another one, all clients would move. It is prime,
	// so that every step through a table visits all of it. Shares are even to about a percent with 160 endpoints, to
	// about ten with 1,600. A table has 32 KiB.
	maglevSize = 16381
	// maglevProbes bounds the walk of a client whose endpoint may not be chosen.
	maglevProbes = 1024
)

// maglevTable is the lookup table of "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud et al.,
// NSDI 2016): every endpoint fills slots in an order of its own, in turn, so that one that comes or goes changes little
// more than its share. It depends on nothing but ids and weights: all nodes have the same. Nil: fewer than two endpoints.
type maglevTable []uint16

// newMaglev builds a table. Weights may be nil. Endpoints beyond its size are only chosen when none of the others may be.
func newMaglev(endpoints []*ax.Endpoint, weights []uint32) maglevTable {
	const size = maglevSize
	n := min(len(endpoints), size)
	if n < 2 {
		return nil
	}
	heaviest := uint64(1)
	if weights != nil {
		heaviest = uint64(slices.Max(weights[:n]))
	}
	free := uint16(n) // one more than every index
	table := make(maglevTable, size)
	for i := range table {
		table[i] = free
	}
	position, step, due := make([]int, n), make([]int, n), make([]uint64, n)
	for i, e := range endpoints[:n] {
		position[i] = int(stableHash(fnvOffset, string(e.ID)) % uint64(size))
		step[i] = 1 + int(stableHash(fnvPrime, string(e.ID))%uint64(size-1))
	}
	for filled, round := 0, uint64(1); filled < size; round++ {
		for i := 0; i < n && filled < size; i++ {
			if weights != nil {
				if round*uint64(weights[i]) < due[i] {
					continue
				}
				due[i] += heaviest
			}
			for table[position[i]] != free {
				position[i] = (position[i] + step[i]) % size
			}
			table[position[i]] = uint16(i)
			filled++
		}
	}
	return table
}

// pick returns the candidate of a client. One whose slot belongs to no candidate walks through the table in a step of
// its own, so that those of a dead endpoint spread over all the others.
func (t maglevTable) pick(h uint64, candidates mask) int {
	if size := uint64(len(t)); size > 0 {
		at, step := h%size, 1+h/size%(size-1)
		for range maglevProbes {
			if i := int(t[at]); candidates.has(i) {
				return i
			}
			at = (at + step) % size
		}
	}
	return candidates.nth(int(h % uint64(candidates.count())))
}
