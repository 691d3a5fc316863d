package dnssrv

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// How long replies of other servers are kept.
const (
	MaxTTL         = time.Hour          // whatever a record says
	MaxNegativeTTL = time.Minute        // "no such name" and "no such data", whatever the SOA says
	failureTTL     = time.Second        // a server that fails is not asked again at once (RFC 9520)
	MaxCacheBytes  = 32 << 20           // of all replies together, as they are on the wire
	maxCacheable   = dns.MaxMsgSize / 4 // a longer reply is not kept
)

// Cache keeps replies of other servers, the least recently used of them being dropped first.
type Cache struct {
	max     int // entries
	hits    prometheus.Counter
	misses  prometheus.Counter
	evicted prometheus.Counter

	mu      sync.Mutex // guards what follows
	entries map[key]*list.Element
	recent  list.List // of *entry, the most recently used first
	bytes   int
}

// key is what a reply depends on.
type key struct {
	name   string // lower case
	qtype  uint16
	dnssec bool // signatures wanted
	cd     bool // unchecked data accepted
}

// entry is a cached reply. The message is shared and never changed.
type entry struct {
	key     key
	msg     *dns.Msg
	size    int
	stored  time.Time
	expires time.Time
}

// NewCache returns a cache of at most so many replies; 0 keeps none.
func NewCache(maximum int, r prometheus.Registerer) (*Cache, error) {
	if maximum < 0 || r == nil {
		return nil, errors.New("cache: a size of at least 0 and a registerer are required")
	}
	c := &Cache{
		max: maximum, entries: map[key]*list.Element{},
		hits:    counter("cache_hits_total", "Queries answered from the cache of forwarded replies."),
		misses:  counter("cache_misses_total", "Queries that the cache of forwarded replies could not answer."),
		evicted: counter("cache_evictions_total", "Replies dropped from the cache before they expired, to keep its size."),
	}
	entries := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("cache_entries", "Replies in the cache.")), func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.entries))
	})
	return c, register(r, c.hits, c.misses, c.evicted, entries)
}

// Name implements Handler.
func (*Cache) Name() string { return "cache" }

func keyOf(q *Query) key {
	return key{name: strings.ToLower(q.Name), qtype: q.Type, dnssec: q.DNSSEC(), cd: q.msg.CheckingDisabled}
}

// Handle implements Handler.
func (c *Cache) Handle(_ context.Context, q *Query) *dns.Msg {
	e := c.get(keyOf(q))
	if e == nil {
		c.misses.Inc()
		return nil
	}
	c.hits.Inc()
	return forwarded(q, e.msg, time.Since(e.stored))
}

func (c *Cache) get(k key) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.entries[k]
	if !ok {
		return nil
	}
	e := el.Value.(*entry)
	if !time.Now().Before(e.expires) {
		c.remove(el)
		return nil
	}
	c.recent.MoveToFront(el)
	return e
}

// put keeps a reply for as long as it says, within the limits. The message must not change any more.
func (c *Cache) put(k key, m *dns.Msg) {
	ttl, size := lifetime(m), m.Len()
	if ttl <= 0 || c.max == 0 || size > maxCacheable {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[k]; ok {
		c.remove(el)
	}
	c.entries[k] = c.recent.PushFront(&entry{key: k, msg: m, size: size, stored: now, expires: now.Add(ttl)})
	c.bytes += size
	for len(c.entries) > c.max || c.bytes > MaxCacheBytes {
		oldest := c.recent.Back()
		if oldest.Value.(*entry).expires.After(now) {
			c.evicted.Inc()
		}
		c.remove(oldest)
	}
}

// remove is called with the mutex held.
func (c *Cache) remove(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.size
}

// lifetime tells how long a reply may be kept; 0: not at all.
func lifetime(m *dns.Msg) time.Duration {
	switch {
	case m.Truncated:
		return 0
	case m.Rcode == dns.RcodeServerFailure:
		return failureTTL
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return 0
	case m.Rcode == dns.RcodeNameError || !answers(m):
		return min(negativeTTL(m), shortest(m), MaxNegativeTTL)
	}
	return min(shortest(m), MaxTTL)
}

// answers reports whether a reply has what was asked for, not only the aliases on the way to it.
func answers(m *dns.Msg) bool {
	for _, rr := range m.Answer {
		if t := rr.Header().Rrtype; t == m.Question[0].Qtype || t == dns.TypeCNAME && m.Question[0].Qtype == dns.TypeANY {
			return true
		}
	}
	return false
}

// negativeTTL follows RFC 2308, section 5: without an SOA a negative reply is not kept.
func negativeTTL(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
		}
	}
	return 0
}

// shortest returns the smallest TTL of a reply.
func shortest(m *dns.Msg) time.Duration {
	ttl := uint32(MaxTTL / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			ttl = min(ttl, rr.Header().Ttl)
		}
	}
	return time.Duration(ttl) * time.Second
}

// forwarded answers a query with the reply of another server, received so long ago.
func forwarded(q *Query, from *dns.Msg, age time.Duration) *dns.Msg {
	m := q.Reply(from.Rcode)
	m.AuthenticatedData = from.AuthenticatedData && (q.msg.AuthenticatedData || q.DNSSEC())
	seconds := uint32(max(0, age/time.Second))
	m.Answer = aged(from.Answer, seconds)
	m.Ns = aged(from.Ns, seconds)
	m.Extra = aged(from.Extra, seconds)
	return m
}

func aged(in []dns.RR, seconds uint32) []dns.RR {
	if len(in) == 0 {
		return nil
	}
	out := make([]dns.RR, len(in))
	for i, rr := range in {
		out[i] = dns.Copy(rr)
		h := out[i].Header()
		h.Ttl = min(h.Ttl, uint32(MaxTTL/time.Second))
		h.Ttl -= min(h.Ttl, seconds)
	}
	return out
}
