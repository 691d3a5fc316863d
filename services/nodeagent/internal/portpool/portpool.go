// Package portpool hands out the host ports on which applications really listen.
//
// Invariant: a port is used while its count of holders is above zero, and only ports of the configured ranges ever are.
// That the kernel lets a port be bound is not known here: the ranges overlap its ephemeral ports, so a caller whose bind
// fails keeps the busy port while it takes the next one, and releases it afterwards. Start reading at [Pool.Take].
package portpool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// MaxHolders bounds the sockets that share one port by SO_REUSEPORT.
const MaxHolders = 1 << 20

// outside marks a port that the pool does not have.
const outside = -1

// Pool is a set of ports. It is safe for concurrent use.
type Pool struct {
	ports []uint16 // in rotation, ascending

	// mu guards everything below.
	mu      sync.Mutex
	holders [1 << 16]int32 // by port: number of holders, or outside
	next    int            // index in ports at which the next search starts
	used    int            // ports with holders
}

// New builds a pool from a list of ports and ranges such as "40000-60000,4000". What is named twice counts once.
func New(ranges string) (*Pool, error) {
	p := &Pool{}
	for i := range p.holders {
		p.holders[i] = outside
	}
	for part := range strings.SplitSeq(ranges, ",") {
		lo, hi, err := parseRange(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("ports %q: %w", ranges, err)
		}
		for port := int(lo); port <= int(hi); port++ {
			p.holders[port] = 0
		}
	}
	for port, n := range p.holders {
		if n != outside {
			p.ports = append(p.ports, uint16(port))
		}
	}
	p.next = rand.IntN(len(p.ports))
	return p, nil
}

func parseRange(s string) (lo, hi uint16, err error) {
	first, last, isRange := strings.Cut(s, "-")
	if lo, err = parsePort(first); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return lo, lo, nil
	}
	if hi, err = parsePort(last); err != nil {
		return 0, 0, err
	}
	if hi < lo {
		return 0, 0, fmt.Errorf("range %q ends before it starts: write %d-%d", s, hi, lo)
	}
	return lo, hi, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
	switch {
	case s == "":
		return 0, errors.New("a port is missing: want ports and ranges separated by commas, such as 40000-60000,4000")
	case err != nil || n == 0:
		return 0, fmt.Errorf("%q is not a port: want 1 to 65535, or a range such as 40000-60000", s)
	}
	return uint16(n), nil
}

// Take marks the next free port as used and returns it, or false if all are. The search goes round, so that a port
// which was just released, or found busy, is not the next one.
func (p *Pool) Take() (uint16, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == len(p.ports) {
		return 0, false
	}
	for {
		port := p.ports[p.next]
		p.next = (p.next + 1) % len(p.ports)
		if p.holders[port] == 0 {
			p.holders[port] = 1
			p.used++
			return port, true
		}
	}
}

// Reserve marks a certain port as used: the first holder of a port that was taken before a restart. It returns false
// if the pool does not have the port, or if it is used already.
func (p *Pool) Reserve(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holders[port] != 0 {
		return false
	}
	p.holders[port] = 1
	p.used++
	return true
}

// Share adds a holder to a used port: another member of a SO_REUSEPORT group. It returns false if the port is not used,
// or has MaxHolders.
func (p *Pool) Share(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.holders[port]; n <= 0 || n >= MaxHolders {
		return false
	}
	p.holders[port]++
	return true
}

// Release gives up one hold of a port; the last makes it free. It returns false if the port was not used.
func (p *Pool) Release(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holders[port] <= 0 {
		return false
	}
	if p.holders[port]--; p.holders[port] == 0 {
		p.used--
	}
	return true
}

// Contains reports whether a port belongs to the pool.
func (p *Pool) Contains(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holders[port] != outside
}

// Used returns the number of ports that are used.
func (p *Pool) Used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// Size returns the number of ports, used or not.
func (p *Pool) Size() int { return len(p.ports) }
