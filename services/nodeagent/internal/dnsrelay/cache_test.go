package dnsrelay

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCacheIsBounded(t *testing.T) {
	one := answer(t, ask(t, 1, "n0."), "198.18.0.1")
	for name, limit := range map[string]struct{ entries, bytes int }{"by entries": {4, 1 << 20}, "by bytes": {1000, 4 * len(one)}} {
		t.Run(name, func(t *testing.T) {
			evicted := prometheus.NewCounter(prometheus.CounterOpts{Name: "evicted"})
			c := newCache(limit.entries, limit.bytes, evicted)
			query := func(i int) *query { return parse(ask(t, 1, fmt.Sprintf("n%d.", i))) }
			for i := range 4 {
				c.learn(query(i), answer(t, query(i).data, "198.18.0.1"))
			}
			c.learn(query(3), answer(t, query(3).data, "198.18.0.1")) // again: takes no more room
			if c.len() != 4 || testutil.ToFloat64(evicted) != 0 {
				t.Fatalf("%d entries, %v evicted", c.len(), testutil.ToFloat64(evicted))
			}
			if c.stale(query(0)) == nil { // now the most recently used
				t.Fatal("n0 is gone")
			}
			c.learn(query(4), answer(t, query(4).data, "198.18.0.1"))
			for i, want := range []bool{true, false, true, true, true} {
				if got := c.stale(query(i)) != nil; got != want {
					t.Errorf("n%d is kept: %v", i, got)
				}
			}
			if c.len() != 4 || c.size != 4*len(one) || testutil.ToFloat64(evicted) != 1 {
				t.Errorf("%d entries of %d bytes, %v evicted", c.len(), c.size, testutil.ToFloat64(evicted))
			}
		})
	}
}

// What is handed out is the client's: it does not change what is kept.
func TestCacheKeepsItsOwnCopy(t *testing.T) {
	c := newCache(4, 1<<20, prometheus.NewCounter(prometheus.CounterOpts{Name: "evicted"}))
	q := parse(ask(t, 1, "web."))
	b := answer(t, q.data, "198.18.0.1")
	c.learn(q, b)
	clear(b)
	first := c.stale(q)
	if addrOf(t, first) != "198.18.0.1" {
		t.Fatalf("got %x", first)
	}
	clear(first)
	if got := addrOf(t, c.stale(q)); got != "198.18.0.1" {
		t.Errorf("got %s", got)
	}
}
