package zone

import (
	"hash/maphash"
	"iter"
	"maps"
)

// width is the number of leaves of a cowMap: in a table of 50,000 entries a change copies the array of leaves and 50 entries.
const width = 1024

// seed keeps whoever chooses names from choosing ones that fall into the same leaf.
var seed = maphash.MakeSeed()

// cowMap is an immutable map: a copy of the struct is a copy of the map, and an [edit] makes the next one, which
// shares all leaves that it did not touch.
type cowMap[K comparable, V any] struct {
	leaves *[width]*leaf[K, V]
	len    int
}

// leaf wraps the map so that two leaves can be compared by identity.
type leaf[K comparable, V any] struct{ entries map[K]V }

func place[K comparable](k K) int { return int(maphash.Comparable(seed, k) % width) }

func (m cowMap[K, V]) get(k K) (V, bool) {
	if m.leaves != nil {
		if l := m.leaves[place(k)]; l != nil {
			v, ok := l.entries[k]
			return v, ok
		}
	}
	var none V
	return none, false
}

func (m cowMap[K, V]) leaf(i int) *leaf[K, V] {
	if m.leaves == nil {
		return nil
	}
	return m.leaves[i]
}

func (l *leaf[K, V]) all() map[K]V {
	if l == nil {
		return nil
	}
	return l.entries
}

func (m cowMap[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range width {
			for k, v := range m.leaf(i).all() {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// since visits the entries of the leaves that m does not share with older: what is there now, then what is gone.
func (m cowMap[K, V]) since(older cowMap[K, V], is func(K, V), gone func(K)) {
	if m.leaves == older.leaves {
		return
	}
	for i := range width {
		now, then := m.leaf(i), older.leaf(i)
		if now == then {
			continue
		}
		for k, v := range now.all() {
			is(k, v)
		}
		for k := range then.all() {
			if _, there := now.all()[k]; !there {
				gone(k)
			}
		}
	}
}

// edit makes the next version of a map, copying each part at most once. The original stays as it is.
type edit[K comparable, V any] struct {
	m     cowMap[K, V]
	owned map[int]struct{} // leaves that are ours
}

func (m cowMap[K, V]) edit() *edit[K, V] { return &edit[K, V]{m: m} }

func (e *edit[K, V]) own(i int) map[K]V {
	if e.owned == nil {
		e.owned = make(map[int]struct{})
		leaves := new([width]*leaf[K, V])
		if e.m.leaves != nil {
			*leaves = *e.m.leaves
		}
		e.m.leaves = leaves
	}
	if _, ours := e.owned[i]; !ours {
		e.owned[i] = struct{}{}
		l := &leaf[K, V]{entries: maps.Clone(e.m.leaves[i].all())}
		if l.entries == nil {
			l.entries = make(map[K]V, 1)
		}
		e.m.leaves[i] = l
	}
	return e.m.leaves[i].entries
}

func (e *edit[K, V]) set(k K, v V) {
	entries := e.own(place(k))
	before := len(entries)
	entries[k] = v
	e.m.len += len(entries) - before
}

func (e *edit[K, V]) delete(k K) {
	if _, there := e.m.get(k); !there {
		return
	}
	delete(e.own(place(k)), k)
	e.m.len--
}
