package route

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"appswitch.io/internal/ax"
)

// fanout is the width of both levels of a cowMap: 64 pages of 64 leaves, so that of a table of 50,000 entries a
// change copies two arrays of 64 pointers and a dozen entries.
const fanout = 64

// cowMap is a map whose copies share what did not change: copying the struct copies the map. It is changed only
// through an [edit]. The caller hashes, because it can do so without reflection.
type cowMap[K comparable, V any] struct {
	pages [fanout]*page[K, V]
	len   int
}

type page[K comparable, V any] [fanout]*leaf[K, V]

// leaf wraps the map so that two leaves can be compared by identity.
type leaf[K comparable, V any] struct{ entries map[K]V }

// slot splits a hash into the place at each level.
func slot(h uint64) (inRoot, inPage int) { return int(h % fanout), int(h / fanout % fanout) }

func (m *cowMap[K, V]) get(h uint64, k K) (V, bool) {
	i, j := slot(h)
	if p := m.pages[i]; p != nil {
		if l := p[j]; l != nil {
			v, ok := l.entries[k]
			return v, ok
		}
	}
	var none V
	return none, false
}

// changed visits the entries that m and older may not have in common: those of the leaves that they don't share.
// A missing side is visited as the zero value and false.
func (m *cowMap[K, V]) changed(older *cowMap[K, V], visit func(k K, was V, wasThere bool, is V, isThere bool)) {
	for i := range m.pages {
		if m.pages[i] == older.pages[i] {
			continue
		}
		for j := range fanout {
			now, then := m.pages[i].leaf(j), older.pages[i].leaf(j)
			if now == then {
				continue
			}
			var none V
			for k, was := range then.all() {
				if _, there := now.all()[k]; !there {
					visit(k, was, true, none, false)
				}
			}
			for k, is := range now.all() {
				was, there := then.all()[k]
				visit(k, was, there, is, true)
			}
		}
	}
}

func (p *page[K, V]) leaf(j int) *leaf[K, V] {
	if p == nil {
		return nil
	}
	return p[j]
}

func (l *leaf[K, V]) all() map[K]V {
	if l == nil {
		return nil
	}
	return l.entries
}

// edit changes a cowMap that nobody else sees yet, copying each part at most once.
type edit[K comparable, V any] struct {
	m      *cowMap[K, V]
	pages  uint64         // bit i: page i is ours
	leaves [fanout]uint64 // bit j of i: leaf j of page i is ours
}

// own returns the leaf of a hash, made ours.
func (e *edit[K, V]) own(h uint64) *leaf[K, V] {
	i, j := slot(h)
	if e.pages&(1<<i) == 0 {
		e.pages |= 1 << i
		p := new(page[K, V])
		if old := e.m.pages[i]; old != nil {
			*p = *old
		}
		e.m.pages[i] = p
	}
	p := e.m.pages[i]
	if e.leaves[i]&(1<<j) == 0 {
		e.leaves[i] |= 1 << j
		l := &leaf[K, V]{}
		if old := p[j]; old != nil {
			l.entries = maps.Clone(old.entries)
		}
		if l.entries == nil {
			l.entries = make(map[K]V, 1)
		}
		p[j] = l
	}
	return p[j]
}

func (e *edit[K, V]) set(h uint64, k K, v V) {
	l := e.own(h)
	before := len(l.entries)
	l.entries[k] = v
	e.m.len += len(l.entries) - before
}

func (e *edit[K, V]) delete(h uint64, k K) {
	if _, there := e.m.get(h, k); !there {
		return
	}
	delete(e.own(h).entries, k)
	e.m.len--
}

// hashSeed keeps applications, which choose virtual addresses, from choosing ones that fall into the same leaf.
var (
	hashSeed   = rand.Uint64() | 1
	stringSeed = maphash.MakeSeed()
)

func hashAddr(a netip.Addr) uint64 {
	b := a.As16()
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b[:8])^hashSeed, binary.LittleEndian.Uint64(b[8:])^0x9e3779b97f4a7c15)
	return mix(hi ^ lo)
}

func hashAddrPort(proto ax.Protocol, a netip.AddrPort) uint64 {
	return withPort(hashAddr(a.Addr()), proto, a.Port())
}

func withPort(h uint64, proto ax.Protocol, port uint16) uint64 {
	return mix(h ^ uint64(port)<<8 ^ uint64(proto))
}

func hashString(s string) uint64 { return maphash.String(stringSeed, s) }

func mix(h uint64) uint64 {
	hi, lo := bits.Mul64(h^hashSeed, 0xd6e8feb86659fd93)
	return hi ^ lo
}
