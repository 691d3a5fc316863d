// Package doors is the list of what a node relays and opens to the outside: proxies and exposed ports.
//
// Whoever opens a door adds it here and removes it when it is closed. Its invariant: a door is listed exactly as long
// as its owner holds it. Start reading at [Table].
package doors

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
)

// MaxDoors bounds proxies and exposed ports, each: there is a port of the node behind every one of them.
const MaxDoors = 65535

// Proxy is a listener that relays connections.
type Proxy struct {
	ID       uint32 // set by AddProxy
	Protocol ax.Protocol
	Listener netip.AddrPort
	Dialers  []netip.AddrPort // where it connects to
}

// Expose is a port that is open to clients outside AppSwitch.
type Expose struct {
	Protocol ax.Protocol
	Node     netip.AddrPort // address and port on the node
	Service  netip.AddrPort // what answers there
}

// Table lists the doors of a node; it is safe for concurrent use.
type Table struct {
	mu      sync.Mutex // guards what follows
	lastID  uint32
	proxies map[uint32]Proxy
	exposes map[exposeKey]Expose
}

// exposeKey is what no two exposed ports share.
type exposeKey struct {
	protocol ax.Protocol
	node     netip.AddrPort
}

// New returns an empty table and registers its size as metrics.
func New(reg prometheus.Registerer) (*Table, error) {
	t := &Table{proxies: map[uint32]Proxy{}, exposes: map[exposeKey]Expose{}}
	size := func(kind string, n func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "appswitch_gateway_doors", Help: "Open doors of the node.", ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 {
			t.mu.Lock()
			defer t.mu.Unlock()
			return float64(n())
		})
	}
	for _, c := range []prometheus.Collector{
		size("proxy", func() int { return len(t.proxies) }),
		size("expose", func() int { return len(t.exposes) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return t, nil
}

// AddProxy lists a proxy under a new id; remove takes it off the list; calling it again does nothing.
func (t *Table) AddProxy(p Proxy) (id uint32, remove func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.proxies) >= MaxDoors {
		return 0, nil, fmt.Errorf("proxy on %s: there are %d already", p.Listener, MaxDoors)
	}
	t.lastID++
	for t.lastID == 0 || t.has(t.lastID) {
		t.lastID++
	}
	p.ID = t.lastID
	p.Dialers = slices.Clone(p.Dialers)
	t.proxies[p.ID] = p
	var once sync.Once // the id may be in use again by the second call
	return p.ID, func() {
		once.Do(func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			delete(t.proxies, p.ID)
		})
	}, nil
}

func (t *Table) has(id uint32) bool {
	_, ok := t.proxies[id]
	return ok
}

// AddExpose lists an exposed port. A port of the node that is listed already is an error: it can answer for one
// service only.
func (t *Table) AddExpose(e Expose) (remove func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := exposeKey{e.Protocol, e.Node}
	if other, taken := t.exposes[key]; taken {
		return nil, fmt.Errorf("expose %s as %s/%s: that port answers for %s already", e.Service, e.Protocol, e.Node, other.Service)
	}
	if len(t.exposes) >= MaxDoors {
		return nil, fmt.Errorf("expose %s as %s/%s: there are %d ports already", e.Service, e.Protocol, e.Node, MaxDoors)
	}
	t.exposes[key] = e
	var once sync.Once // the port may belong to another service by the second call
	return func() {
		once.Do(func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			delete(t.exposes, key)
		})
	}, nil
}

// Proxies returns the proxies, by id.
func (t *Table) Proxies() []Proxy {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Proxy, 0, len(t.proxies))
	for _, p := range t.proxies {
		p.Dialers = slices.Clone(p.Dialers)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Proxy) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Exposes returns the exposed ports, by node address.
func (t *Table) Exposes() []Expose {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Expose, 0, len(t.exposes))
	for _, e := range t.exposes {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Expose) int {
		return cmp.Or(ax.CompareAddrPort(a.Node, b.Node), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}
