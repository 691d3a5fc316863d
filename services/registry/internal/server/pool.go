package server

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net/netip"
	"strings"
)

// Size of a pool, in bits of address.
const (
	minPoolBits = 2
	maxPoolBits = 24
)

// pool is the addresses that are made up for names, all but the first and the last of a prefix.
type pool struct {
	prefix netip.Prefix
	size   uint32 // addresses that can be given out
}

func newPool(p netip.Prefix) (pool, error) {
	if !p.IsValid() {
		return pool{}, fmt.Errorf("address pool is missing: want a prefix, such as 198.18.0.0/15")
	}
	n := min(p.Addr().BitLen()-p.Bits(), maxPoolBits)
	if n < minPoolBits {
		return pool{}, fmt.Errorf("address pool %s has no room: at least 4 addresses", p)
	}
	if err := checkVirtual("address pool", p.Masked().Addr().Next()); err != nil {
		return pool{}, err
	}
	return pool{prefix: p.Masked(), size: 1<<n - 2}, nil
}

// first returns where the search for the address of a name begins. It is the same for the same name, so that a name
// tends to get its address back, and far apart for different ones, so that allocations seldom meet.
func (p pool) first(name string) uint32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.ToLower(name))) // never fails
	high, _ := bits.Mul64(h.Sum64()*0x9e3779b97f4a7c15, uint64(p.size))
	return uint32(high)
}

// at returns the i-th address, counting from the first again after the last.
func (p pool) at(i uint32) netip.Addr {
	offset := i%p.size + 1
	if p.prefix.Addr().Is4() {
		a := p.prefix.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+offset)
		return netip.AddrFrom4(a)
	}
	a := p.prefix.Addr().As16()
	binary.BigEndian.PutUint32(a[12:], binary.BigEndian.Uint32(a[12:])+offset)
	return netip.AddrFrom16(a)
}
