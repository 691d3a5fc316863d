package conncount

import (
	"net/netip"
	"sync"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"github.com/prometheus/client_golang/prometheus"
)

var _ route.Load = (*Counter)(nil)

func newCounter(t *testing.T) (*Counter, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewRegistry()
	c, err := New(r)
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}

// metric reads the sum of a metric.
func metric(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

var (
	hostA = netip.MustParseAddrPort("10.0.2.1:40000")
	hostB = netip.MustParseAddrPort("10.0.2.2:40000")
)

func TestCounter(t *testing.T) {
	c, _ := newCounter(t)
	want := func(a, b int) {
		t.Helper()
		if x, y := c.Connections(ax.TCP, hostA), c.Connections(ax.TCP, hostB); x != a || y != b {
			t.Fatalf("%d and %d connections, want %d and %d", x, y, a, b)
		}
	}
	want(0, 0)
	c.Opened(1, ax.TCP, hostA)
	c.Opened(2, ax.TCP, hostA)
	c.Opened(3, ax.TCP, hostB)
	c.Opened(4, ax.UDP, hostB)
	want(2, 1)
	c.Opened(1, ax.TCP, hostA) // told twice
	want(2, 1)
	c.Opened(1, ax.TCP, hostB) // the first refused
	want(1, 2)
	c.Closed(1)
	c.Closed(1)
	c.Closed(99)
	want(1, 1)
	for cookie := range uint64(5) {
		c.Closed(cookie)
	}
	want(0, 0)
	if n := c.Connections(ax.UDP, hostB); n != 0 {
		t.Errorf("%d connections over UDP", n)
	}
	for i := range c.counts {
		if len(c.counts[i].conns) > 0 {
			t.Errorf("shard %d keeps %v", i, c.counts[i].conns)
		}
	}
}

func TestCounterIsBounded(t *testing.T) {
	c, metrics := newCounter(t)
	c.limit = 2
	for cookie := range uint64(5) {
		c.Opened(cookie, ax.TCP, hostA)
	}
	counted, uncounted := metric(t, metrics, "appswitch_nodeagent_connections_counted"), metric(t, metrics, "appswitch_nodeagent_connections_uncounted_total")
	if n := c.Connections(ax.TCP, hostA); n != 2 || counted != 2 || uncounted != 3 {
		t.Errorf("%d connections, %v counted, %v not; want 2, 2 and 3", n, counted, uncounted)
	}
	c.Opened(1, ax.TCP, hostB) // a counted one may move
	if n := c.Connections(ax.TCP, hostB); n != 1 {
		t.Errorf("%d connections to the second endpoint", n)
	}
}

func TestCounterAtOnce(t *testing.T) {
	c, _ := newCounter(t)
	var wg sync.WaitGroup
	for worker := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(500) {
				cookie := worker<<32 | i
				c.Opened(cookie, ax.TCP, hostA)
				if c.Connections(ax.TCP, hostA) < 1 {
					t.Error("a connection does not count")
				}
				c.Closed(cookie)
			}
		})
	}
	wg.Wait()
	if n := c.Connections(ax.TCP, hostA); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
