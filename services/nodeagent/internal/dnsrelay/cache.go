package dnsrelay

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What is remembered for times when the resolver is silent (RFC 8767).
const (
	MaxStale      = time.Hour // long enough for any restart; RFC 8767's days would outlive the services of a cluster
	StaleTTL      = 5         // seconds; clients ask again soon
	MaxEntries    = 8192
	MaxCacheBytes = 8 << 20 // of all answers together
	maxCacheable  = 4096    // bytes of an answer; a longer one is not kept
)

// cache keeps the resolver's last answers, the least recently used of them being dropped first. It never shortens the
// way to the resolver: it speaks only when that does not.
type cache struct {
	entries, bytes int // at most
	evicted        prometheus.Counter

	mu     sync.Mutex // guards what follows
	byKey  map[key]*list.Element
	recent list.List // of *entry, the most recently used first
	size   int
}

// entry is an answer as it came. Its bytes are never changed.
type entry struct {
	key     key
	answer  []byte
	expires time.Time
}

func newCache(entries, bytes int, evicted prometheus.Counter) *cache {
	return &cache{entries: entries, bytes: bytes, evicted: evicted, byKey: map[key]*list.Element{}}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byKey)
}

// learn keeps the answer to a query. That the name has no data of this type is kept too: clients ask for A and AAAA at
// once, and wait for both. That the name does not exist is not kept, as it may come to exist while the resolver is
// silent; but it is the end of what was kept.
func (c *cache) learn(q *query, answer []byte) {
	if !q.ordinary || count(answer, 0) != 1 {
		return
	}
	switch rcode(answer) {
	case rcodeSuccess:
	case rcodeNXDomain:
		c.forget(q.key)
		return
	default:
		return
	}
	whole := walk(answer, headerSize+len(q.question), func(uint16, []byte) {})
	if flags(answer)&flagTC != 0 || len(answer) > maxCacheable || !whole {
		c.forget(q.key) // what it says now can't be kept, and what it said before is no longer true
		return
	}
	c.put(&entry{key: q.key, answer: bytes.Clone(answer), expires: time.Now().Add(MaxStale)})
}

// stale returns an answer to the query from the past, or nil.
func (c *cache) stale(q *query) []byte {
	if !q.ordinary {
		return nil
	}
	answer := c.get(q.key)
	if answer == nil || len(answer) > q.size {
		return nil
	}
	b := bytes.Clone(answer)
	copy(b, q.data[:2])
	copy(b[headerSize:], q.question) // the same but for case: some clients check that (DNS 0x20)
	// Nobody vouches for it any more.
	binary.BigEndian.PutUint16(b[2:], flags(b)&^(flagAA|flagAD))
	walk(b, headerSize+len(q.question), func(rtype uint16, fixed []byte) {
		if rtype != typeOPT { // its TTL is none
			binary.BigEndian.PutUint32(fixed[4:], min(StaleTTL, binary.BigEndian.Uint32(fixed[4:])))
		}
	})
	return b
}

func (c *cache) get(k key) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[k]
	if !ok {
		return nil
	}
	e := el.Value.(*entry)
	if !time.Now().Before(e.expires) {
		c.remove(el)
		return nil
	}
	c.recent.MoveToFront(el)
	return e.answer
}

func (c *cache) put(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[e.key]; ok {
		c.remove(el)
	}
	c.byKey[e.key] = c.recent.PushFront(e)
	c.size += len(e.answer)
	for len(c.byKey) > c.entries || c.size > c.bytes {
		c.remove(c.recent.Back())
		c.evicted.Inc()
	}
}

func (c *cache) forget(k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[k]; ok {
		c.remove(el)
	}
}

// remove is called with the mutex held.
func (c *cache) remove(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.byKey, e.key)
	c.size -= len(e.answer)
}
