package route

import "math/bits"

// inlineWords is the length of a mask that needs no allocation.
const inlineWords = 8

// mask is a set of small numbers: positions in a group.
type mask []uint64

// makeMask returns an empty mask for n numbers, in buf if that is large enough.
func makeMask(buf []uint64, n int) mask {
	words := (n + 63) / 64
	if words > len(buf) {
		return make(mask, words)
	}
	return buf[:words]
}

func (m mask) set(i int)   { m[i/64] |= 1 << (i % 64) }
func (m mask) clear(i int) { m[i/64] &^= 1 << (i % 64) }

func (m mask) has(i int) bool { return m[i/64]&(1<<(i%64)) != 0 }

func (m mask) empty() bool {
	for _, w := range m {
		if w != 0 {
			return false
		}
	}
	return true
}

func (m mask) count() int {
	n := 0
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// nth returns the n-th number of the set, from 0; -1 if the set is smaller.
func (m mask) nth(n int) int {
	for i, w := range m {
		if c := bits.OnesCount64(w); n >= c {
			n -= c
			continue
		}
		for range n {
			w &= w - 1
		}
		return i*64 + bits.TrailingZeros64(w)
	}
	return -1
}
