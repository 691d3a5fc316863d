package route_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

// loads counts connections by real address, as a node agent does.
type loads struct {
	mu    sync.Mutex // guards conns
	conns map[netip.AddrPort]int
}

func (l *loads) Connections(_ ax.Protocol, host netip.AddrPort) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[host]
}

func (l *loads) add(host netip.AddrPort, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[host] += n
}

// weighed is a service of n endpoints e000, e001, … with these weights, if any.
func weighed(b ax.BalancerType, n int, weights ...uint16) route.Service {
	svc := service("1.1.1.1:80", b)
	for i := range n {
		host := fmt.Sprintf("10.0.2.%d:%d", 1+i%9, 40000+i)
		svc.Endpoints = append(svc.Endpoints, endpoint(fmt.Sprintf("e%03d", i), "1.1.1.1:80", host, prod))
	}
	svc.Weights = weights
	return svc
}

func snapshotOf(services ...route.Service) *route.Snapshot {
	return route.Empty().Apply(route.Delta{Revision: 1, Upserts: services})
}

// from is a flow of the i-th client, which has an address of its own.
func from(i int) ax.Flow {
	client := netip.AddrFrom4([4]byte{2, byte(i >> 16), byte(i >> 8), byte(i)})
	return ax.Flow{App: ax.AppID(fmt.Sprintf("%08x", i)), Client: client, Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")}
}

// shares decides for n clients and counts by the endpoint's place. Connections stay open.
func shares(t *testing.T, svc route.Service, n int) []int {
	t.Helper()
	s, l := snapshotOf(svc), &loads{conns: map[netip.AddrPort]int{}}
	d := route.NewDecider(route.Config{Load: l})
	out := make([]int, len(svc.Endpoints))
	for i := range n {
		e := d.Decide(s, from(i), nil).Endpoint
		if e == nil {
			t.Fatalf("%s: client %d was refused", svc.Balancer, i)
		}
		l.add(e.Host, 1)
		var place int
		if _, err := fmt.Sscanf(string(e.ID), "e%03d", &place); err != nil {
			t.Fatal(err)
		}
		out[place]++
	}
	return out
}

// TestWeights: whatever the weights, each balancer gives endpoints connections in proportion to them.
func TestWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 12 {
		n := 2 + r.IntN(9)
		weights := make([]uint16, n)
		total := 0
		for i := range weights {
			weights[i] = uint16(1 + r.IntN(9))
			total += int(weights[i])
		}
		if round == 0 {
			weights, total = nil, n
		}
		const rounds = 400
		count := total * rounds
		for _, b := range ax.Balancers() {
			for i, got := range shares(t, weighed(b, n, weights...), count) {
				weight := 1
				if weights != nil {
					weight = int(weights[i])
				}
				want, p := weight*rounds, float64(weight)/float64(total)
				tolerance := 0 // in turn
				switch b {
				case ax.LeastConn:
					tolerance = weight // ties are broken at random
				case ax.Random:
					tolerance = int(8 * math.Sqrt(float64(count)*p*(1-p)))
				case ax.Maglev: // as Random: clients are many and hashed; and the table is even to a few percent
					tolerance = int(8*math.Sqrt(float64(count)*p*(1-p))) + want/10
				}
				if got < want-tolerance || got > want+tolerance {
					t.Errorf("%s, weights %v: endpoint %d got %d of %d, want %d ± %d", b, weights, i, got, count, want, tolerance)
				}
			}
		}
	}
}

// TestWeightedTurnsAreSpread: an endpoint of most of the weight does not get all its turns in a row.
func TestWeightedTurnsAreSpread(t *testing.T) {
	s, d := snapshotOf(weighed(ax.RoundRobin, 11, 10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)), route.NewDecider(route.Config{})
	run := 0
	for i := range 400 {
		if d.Decide(s, from(i), nil).Endpoint.ID != "e000" {
			run = 0
		} else if run++; run > 2 {
			t.Fatalf("%d turns in a row with half of the weight", run)
		}
	}
}

func TestLeastConn(t *testing.T) {
	svc := weighed(ax.LeastConn, 3)
	s, l := snapshotOf(svc), &loads{conns: map[netip.AddrPort]int{}}
	d := route.NewDecider(route.Config{Load: l})
	busy := func(n ...int) {
		for i, c := range n {
			l.add(svc.Endpoints[i].Host, c-l.Connections(ax.TCP, svc.Endpoints[i].Host))
		}
	}
	for _, c := range []struct {
		conns []int
		tried []ax.EndpointID
		want  ax.EndpointID
	}{
		{[]int{5, 4, 6}, nil, "e001"},
		{[]int{3, 4, 6}, nil, "e000"},
		{[]int{3, 4, 2}, nil, "e002"},
		{[]int{3, 4, 2}, []ax.EndpointID{"e002"}, "e000"},
		{[]int{3, 4, 2}, []ax.EndpointID{"e002", "e000"}, "e001"},
	} {
		busy(c.conns...)
		for range 5 {
			if got := d.Decide(s, from(1), c.tried).Endpoint; got == nil || got.ID != c.want {
				t.Errorf("connections %v, tried %v: %v, want %s", c.conns, c.tried, got, c.want)
			}
		}
	}
	busy(7, 7, 7)
	if got := balanced(t, d, s, "1.1.1.1:80", 300); len(got) != 3 {
		t.Errorf("equally busy endpoints: %v, want some for each", got)
	}
}

// maglevOf maps n clients to endpoints.
func maglevOf(s *route.Snapshot, n int, tried ...ax.EndpointID) []ax.EndpointID {
	out := make([]ax.EndpointID, n)
	d := route.NewDecider(route.Config{})
	for i := range out {
		out[i] = d.Decide(s, from(i), tried).Endpoint.ID
	}
	return out
}

// TestMaglevDisruption: when one endpoint leaves, is refused or comes, few clients of the others move, and its own
// spread over all of them.
func TestMaglevDisruption(t *testing.T) {
	const clients = 20000
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{2, 3, 5, 10, 40, 200} {
		var weights []uint16
		if n == 5 {
			weights = []uint16{1, 2, 3, 4, 5}
		}
		all := weighed(ax.Maglev, n, weights...)
		before := maglevOf(snapshotOf(all), clients)
		gone := r.IntN(n)
		id := all.Endpoints[gone].ID
		rest := all
		rest.Endpoints = append(append([]*ax.Endpoint{}, all.Endpoints[:gone]...), all.Endpoints[gone+1:]...)
		if weights != nil {
			rest.Weights = append(append([]uint16{}, weights[:gone]...), weights[gone+1:]...)
		}
		for what, after := range map[string][]ax.EndpointID{
			"left":    maglevOf(snapshotOf(rest), clients),
			"refuses": maglevOf(snapshotOf(all), clients, id),
		} {
			moved, heirs, bereft := 0, map[ax.EndpointID]int{}, 0
			for i := range before {
				switch {
				case after[i] == id:
					t.Fatalf("%d endpoints: client %d is sent to the one that %s", n, i, what)
				case before[i] == id:
					bereft++
					heirs[after[i]]++
				case before[i] != after[i]:
					moved++
				}
			}
			if limit := clients / 20; what == "left" && moved > limit || what == "refuses" && moved > 0 {
				t.Errorf("%d endpoints, one %s: %d of %d other clients moved", n, what, moved, clients)
			}
			if n <= 40 && len(heirs) != n-1 {
				t.Errorf("%d endpoints, one %s: its %d clients went to %d others, want all", n, what, bereft, len(heirs))
			}
		}
	}
}

// TestMaglevIsForEver: every version of every node agrees, or an upgrade would move clients.
func TestMaglevIsForEver(t *testing.T) {
	got := maglevOf(snapshotOf(weighed(ax.Maglev, 7)), 12)
	if want := "[e006 e003 e003 e004 e003 e003 e000 e006 e004 e005 e006 e004]"; fmt.Sprint(got) != want {
		t.Errorf("clients go to %v, want %s", got, want)
	}
	byApp := ax.Flow{App: "f0000001", Labels: prod, Proto: ax.TCP, Dest: from(0).Dest}
	if got := route.NewDecider(route.Config{}).Decide(snapshotOf(weighed(ax.Maglev, 7)), byApp, nil).Endpoint.ID; got != "e004" {
		t.Errorf("an application without address goes to %s", got)
	}
}

// TestClientIdentity: an address of its own outlives an application; on its node's address, it goes by its id.
func TestClientIdentity(t *testing.T) {
	s := snapshotOf(weighed(ax.Maglev, 50)).Apply(route.Delta{Nodes: []ax.Node{{Name: "n", Addr: netip.MustParseAddr("10.0.2.1")}}})
	to := func(app, client string) ax.EndpointID {
		f := ax.Flow{App: ax.AppID(app), Labels: prod, Proto: ax.TCP, Dest: from(0).Dest}
		if client != "" {
			f.Client = netip.MustParseAddr(client)
		}
		return route.NewDecider(route.Config{}).Decide(s, f, nil).Endpoint.ID
	}
	if a, b := to("f0000001", "2.2.2.2"), to("f0000002", "::ffff:2.2.2.2"); a != b {
		t.Errorf("one address, two runs: %s and %s", a, b)
	}
	found := map[ax.EndpointID]bool{}
	for i := range 20 {
		app := fmt.Sprintf("%08x", i)
		found[to(app, "10.0.2.1")] = true
		if a, b := to(app, "10.0.2.1"), to(app, ""); a != b {
			t.Errorf("application %s: %s by its node's address, %s without one", app, a, b)
		}
	}
	if len(found) < 10 {
		t.Errorf("20 applications on their node's address go to %d endpoints", len(found))
	}
}

// clock is a clock that stands still.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func sticky(b ax.BalancerType, n int) route.Service {
	svc := weighed(b, n)
	svc.Affinity = time.Minute
	return svc
}

func TestAffinity(t *testing.T) {
	for _, b := range ax.Balancers() {
		t.Run(b.String(), func(t *testing.T) {
			c := &clock{time.Unix(1e9, 0)}
			d := route.NewDecider(route.Config{Now: c.now})
			s := snapshotOf(sticky(b, 8))
			first := map[int]ax.EndpointID{}
			for i := range 203 {
				first[i] = d.Decide(s, from(i), nil).Endpoint.ID
			}
			for range 5 { // each connect prolongs it
				c.Time = c.Add(59 * time.Second)
				for i := range 203 {
					if got := d.Decide(s, from(i), nil).Endpoint.ID; got != first[i] {
						t.Fatalf("client %d went from %s to %s", i, first[i], got)
					}
				}
			}
			retried := d.Decide(s, from(0), []ax.EndpointID{first[0]}).Endpoint.ID
			if retried == first[0] {
				t.Fatal("an endpoint that refused was chosen again")
			}
			if got := d.Decide(s, from(0), nil).Endpoint.ID; got != retried {
				t.Errorf("after a refusal the client keeps %s, want the one that took it, %s", got, retried)
			}
			grown := s.Apply(route.Delta{Upserts: []route.Service{sticky(b, 12)}})
			for i := 1; i < 203; i++ {
				if got := d.Decide(grown, from(i), nil).Endpoint.ID; got != first[i] {
					t.Fatalf("client %d went from %s to %s when endpoints came", i, first[i], got)
				}
			}
			shrunk := s.Apply(route.Delta{Upserts: []route.Service{sticky(b, 1)}})
			if got := d.Decide(shrunk, from(1), nil).Endpoint.ID; got != "e000" {
				t.Errorf("the client's endpoint is gone: %s", got)
			}
			if b == ax.Maglev {
				return // always the same
			}
			c.Time = c.Add(time.Minute)
			moved := 0
			for i := 1; i < 203; i++ {
				if d.Decide(s, from(i), nil).Endpoint.ID != first[i] {
					moved++
				}
			}
			if moved == 0 {
				t.Error("no client was balanced anew after its affinity had ended")
			}
		})
	}
}

func TestAffinityIsBounded(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	d := route.NewDecider(route.Config{Now: c.now})
	s := snapshotOf(sticky(ax.Random, 4))
	for i := range route.MaxAffinities * 3 / 2 {
		d.Decide(s, from(i), nil)
	}
	over := d.Overflows()
	if over < route.MaxAffinities/4 {
		t.Errorf("%d clients too many, %d overflows", route.MaxAffinities/2, over)
	}
	c.Time = c.Add(time.Hour)
	for i := range 1000 {
		d.Decide(s, from(1<<20+i), nil)
	}
	if d.Overflows() != over {
		t.Error("room of affinities that have ended is not used")
	}
}

// TestExternalEndpoints: a backend outside AppSwitch takes whoever no policy refuses, and is no way around the rules
// for addresses inside.
func TestExternalEndpoints(t *testing.T) {
	outside := func(a string) *ax.Endpoint { return ax.ExternalEndpoint(ax.TCP, netip.MustParseAddrPort(a)) }
	for _, c := range []struct {
		name      string
		endpoints []*ax.Endpoint
		policies  []ax.Policy
		verdict   ax.Verdict
		reason    ax.Reason
		host      string
	}{
		{"outside", []*ax.Endpoint{outside("93.184.216.34:443")}, nil, ax.Allow, ax.ReasonExternal, "93.184.216.34:443"},
		{"port of a node's own", []*ax.Endpoint{outside("10.0.2.1:22")}, nil, ax.Allow, ax.ReasonExternal, "10.0.2.1:22"},
		{"reserved port", []*ax.Endpoint{outside("10.0.2.1:6665")}, nil, ax.Deny, ax.ReasonNoEndpoint, ""},
		{"host port of an endpoint", []*ax.Endpoint{outside("10.0.2.1:40001")}, nil, ax.Deny, ax.ReasonNoEndpoint, ""},
		{"service", []*ax.Endpoint{outside("1.1.1.1:80")}, nil, ax.Deny, ax.ReasonNoEndpoint, ""},
		{"claimed", []*ax.Endpoint{outside("1.1.1.9:80")}, nil, ax.Deny, ax.ReasonNoEndpoint, ""},
		{"beside one of no common label", []*ax.Endpoint{outside("93.184.216.34:443"), endpoint("c", "1.1.1.2:5432", "10.0.2.1:40002", test)}, nil, ax.Allow, ax.ReasonExternal, "93.184.216.34:443"},
		{"denied", []*ax.Endpoint{outside("93.184.216.34:443")}, []ax.Policy{policy("p", ax.PolicyDeny, prod, nil, 443)}, ax.Deny, ax.ReasonPolicyDeny, ""},
		{"policy for labels", []*ax.Endpoint{outside("93.184.216.34:443")}, []ax.Policy{policy("p", ax.PolicyDeny, prod, test)}, ax.Allow, ax.ReasonExternal, "93.184.216.34:443"},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := service("1.1.1.7:80", ax.Random, c.endpoints...)
			svc.Source = netip.MustParseAddr("10.0.2.9")
			s := route.Empty().Apply(world()).Apply(route.Delta{Upserts: []route.Service{svc}, Policies: c.policies})
			f := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: svc.Key.Addr}
			got := route.NewDecider(route.Config{}).Decide(s, f, nil)
			if got.Verdict != c.verdict || got.Reason != c.reason || got.Verdict == ax.Allow && got.Endpoint.Host.String() != c.host {
				t.Errorf("decision %+v, want %v %s %s", got, c.verdict, c.reason, c.host)
			}
			if got.Source.IsValid() != (got.Verdict == ax.Allow) {
				t.Errorf("connect from %v", got.Source)
			}
			if explained, _ := route.Explain(s, f); explained.Verdict != c.verdict || explained.Reason != c.reason {
				t.Errorf("explained as %+v", explained)
			}
			direct := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort("93.184.216.34:443")}
			d := route.NewDecider(route.Config{}).Decide(s, direct, nil)
			if refused := c.reason == ax.ReasonPolicyDeny; refused != (d.Verdict == ax.Deny) || !refused && d.Verdict != ax.Passthrough {
				t.Errorf("the address itself: %+v, want what the virtual service gets", d)
			}
		})
	}
}

func TestBalancersDoNotAllocate(t *testing.T) {
	l := &loads{conns: map[netip.AddrPort]int{}}
	for _, b := range ax.Balancers() {
		for name, svc := range map[string]route.Service{"plain": weighed(b, 8), "weighed": weighed(b, 8, 1, 2, 3, 4, 5, 6, 7, 8), "sticky": sticky(b, 8)} {
			s, d := snapshotOf(svc), route.NewDecider(route.Config{Load: l})
			f, tried := from(1), []ax.EndpointID{"e003"}
			d.Decide(s, f, nil)
			if n := testing.AllocsPerRun(1000, func() { d.Decide(s, f, nil); d.Decide(s, f, tried) }); n != 0 {
				t.Errorf("%s, %s: %v allocations", b, name, n)
			}
		}
	}
}
