// Package conncount counts this node's connections by the endpoint that they lead to, for balancing by least connections.
//
// Invariant: a socket counts for one endpoint at most, and for none once it is closed, however often and in whatever
// order it is told. Reading takes one lock of many for a moment and never waits for a connect. Start reading at [Counter].
package conncount

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
)

// MaxConnections bounds the sockets that are counted: as many as survive a restart of the agent. Connections beyond it
// are not counted, so that balancing is less even.
const MaxConnections = 1 << 20

const shards = 64

// target is the real address of an endpoint.
type target struct {
	proto ax.Protocol
	host  netip.AddrPort
}

// Counter counts connections. It is safe for concurrent use, and implements [route.Load].
type Counter struct {
	counts [shards]countShard

	mu       sync.Mutex // guards what follows
	targets  map[uint64]target
	limit    int
	overflow prometheus.Counter
	open     atomic.Int64 // len of targets, for the metric
}

type countShard struct {
	mu    sync.RWMutex // guards conns
	conns map[target]int
}

// New returns a Counter at zero.
func New(r prometheus.Registerer) (*Counter, error) {
	c := &Counter{targets: map[uint64]target{}, limit: MaxConnections}
	c.overflow = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "appswitch_nodeagent_connections_uncounted_total",
		Help: "Connections to endpoints that were not counted because there were too many.",
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_connections_counted",
		Help: "Connections of this node's applications to endpoints.",
	}, func() float64 { return float64(c.open.Load()) })
	return c, errors.Join(r.Register(c.overflow), r.Register(open))
}

// Opened counts the socket of a cookie for the endpoint at host, and no longer for another one to which it was tried
// before.
func (c *Counter) Opened(cookie uint64, proto ax.Protocol, host netip.AddrPort) {
	t := target{proto, host}
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.targets[cookie]
	switch {
	case known && was == t:
		return
	case known:
		c.add(was, -1)
	case len(c.targets) >= c.limit:
		c.overflow.Inc()
		return
	}
	c.targets[cookie] = t
	c.open.Store(int64(len(c.targets)))
	c.add(t, 1)
}

// Closed counts the socket of a cookie no longer. That of one that does not count is ignored.
func (c *Counter) Closed(cookie uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, known := c.targets[cookie]
	if !known {
		return
	}
	delete(c.targets, cookie)
	c.open.Store(int64(len(c.targets)))
	c.add(t, -1)
}

// Connections returns how many connections lead to the endpoint at host.
func (c *Counter) Connections(proto ax.Protocol, host netip.AddrPort) int {
	t := target{proto, host}
	s := c.shard(t)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conns[t]
}

// add counts n, 1 or -1, for a target.
func (c *Counter) add(t target, n int) {
	s := c.shard(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[target]int{}
	}
	if s.conns[t] += n; s.conns[t] == 0 {
		delete(s.conns, t)
	}
}

// shard spreads by what differs: endpoints of a node differ in their ports, those of many often in the last byte.
func (c *Counter) shard(t target) *countShard {
	b := t.host.Addr().As16()
	return &c.counts[(uint(t.host.Port())+uint(b[15])*7)%shards]
}
