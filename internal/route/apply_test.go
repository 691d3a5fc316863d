package route_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

// model is the plainest table that deltas can be applied to.
type model struct {
	services map[route.ServiceKey]route.Service
	claims   map[netip.Addr]bool
	nodes    map[ax.NodeName]ax.Node
	policies map[string]ax.Policy
}

func newModel() *model {
	return &model{map[route.ServiceKey]route.Service{}, map[netip.Addr]bool{}, map[ax.NodeName]ax.Node{}, map[string]ax.Policy{}}
}

func (m *model) apply(d route.Delta) {
	if d.Full {
		*m = *newModel()
	}
	for _, k := range d.Removes {
		delete(m.services, k)
	}
	for _, s := range d.Upserts {
		if m.services[s.Key] = s; len(s.Endpoints) == 0 {
			delete(m.services, s.Key)
		}
	}
	for _, a := range d.ReleasedClaims {
		delete(m.claims, a)
	}
	for _, a := range d.Claims {
		m.claims[a] = true
	}
	for _, n := range d.RemovedNodes {
		delete(m.nodes, n)
	}
	for _, n := range d.Nodes {
		m.nodes[n.Name] = n
	}
	for _, p := range d.RemovedPolicies {
		delete(m.policies, p)
	}
	for _, p := range d.Policies {
		m.policies[p.Name] = p
	}
}

// full is the model as one delta, sorted as [route.Snapshot.Full] is.
func (m *model) full(r ax.Revision) route.Delta {
	return route.Delta{
		Revision: r, Full: true,
		Upserts:  sorted(maps.Values(m.services), func(a, b route.Service) int { return a.Key.Compare(b.Key) }),
		Claims:   sorted(maps.Keys(m.claims), netip.Addr.Compare),
		Nodes:    sorted(maps.Values(m.nodes), func(a, b ax.Node) int { return cmp.Compare(a.Name, b.Name) }),
		Policies: sorted(maps.Values(m.policies), func(a, b ax.Policy) int { return cmp.Compare(a.Name, b.Name) }),
	}
}

func sorted[T any](seq func(func(T) bool), compare func(a, b T) int) []T {
	return slices.SortedFunc(seq, compare)
}

// generator makes deltas over a universe so small that they meet.
type generator struct{ *rand.Rand }

func (g generator) addr() netip.Addr {
	if g.IntN(4) == 0 {
		return netip.AddrFrom4([4]byte{10, 0, 2, byte(g.IntN(3))}) // nodes' addresses serve as well
	}
	return netip.AddrFrom4([4]byte{1, 1, 1, byte(g.IntN(4))})
}

func (g generator) key() route.ServiceKey {
	return route.ServiceKey{Proto: ax.Protocol(1 + g.IntN(2)), Addr: netip.AddrPortFrom(g.addr(), uint16(80+g.IntN(3)))}
}

func (g generator) labels() ax.Labels {
	l := ax.Labels{}
	for range g.IntN(3) {
		l[fmt.Sprint("k", g.IntN(3))] = fmt.Sprint("v", g.IntN(2))
	}
	return l
}

func (g generator) service(key route.ServiceKey) route.Service {
	s := route.Service{Key: key, Balancer: ax.BalancerType(1 + g.IntN(4)), Affinity: time.Duration(g.IntN(2)) * time.Minute}
	if g.IntN(4) == 0 {
		s.Source = g.addr()
	}
	for i := range g.IntN(5) {
		if g.IntN(3) == 0 {
			continue
		}
		s.Endpoints = append(s.Endpoints, &ax.Endpoint{
			ID: ax.EndpointID(fmt.Sprint("e", i)), Node: ax.NodeName(fmt.Sprint("n", g.IntN(3))), Proto: key.Proto, Service: g.key().Addr,
			Host: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(g.IntN(3))}), uint16(40000+g.IntN(4))), Labels: g.labels(), Stale: g.IntN(4) == 0,
		})
	}
	if g.IntN(3) == 0 { // its id is after the others'
		s.Endpoints = append(s.Endpoints, ax.ExternalEndpoint(key.Proto, g.key().Addr))
	}
	if g.IntN(2) == 0 {
		for range s.Endpoints {
			s.Weights = append(s.Weights, uint16(1+g.IntN(4)))
		}
	}
	return s
}

// policy makes one of every kind.
func (g generator) policy(name string) ax.Policy {
	p := ax.Policy{Name: name, Action: ax.PolicyAction(1 + g.IntN(2)), From: g.selector(), To: g.selector(), Proto: ax.Protocol(g.IntN(3))}
	p.Audit = p.Action == ax.PolicyDeny && g.IntN(2) == 0
	if g.IntN(2) == 0 {
		p.Ports = []ax.PortRange{{First: 80, Last: uint16(80 + g.IntN(3))}}
	}
	if g.IntN(2) == 0 {
		p.CIDRs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		if g.IntN(2) == 0 {
			p.Except = []netip.Prefix{netip.PrefixFrom(g.addr(), 32)}
		}
	}
	return p.Canonical()
}

func (g generator) selector() (s ax.Selector) {
	for range g.IntN(3) {
		c := ax.Condition{Key: fmt.Sprint("k", g.IntN(3)), Op: ax.SelectorOp(1 + g.IntN(4))}
		if c.Op == ax.SelectIn || c.Op == ax.SelectNotIn {
			c.Values = []string{"v0", "v1", "v2"}[g.IntN(2):][:1+g.IntN(2)]
		}
		s = append(s, c)
	}
	return s
}

func (g generator) delta(revision ax.Revision) route.Delta {
	d := route.Delta{Revision: revision, Full: g.IntN(20) == 0}
	for range g.IntN(4) {
		d.Upserts = append(d.Upserts, g.service(g.key()))
	}
	for range g.IntN(3) {
		d.Removes = append(d.Removes, g.key())
		d.Claims = append(d.Claims, g.addr())
		d.ReleasedClaims = append(d.ReleasedClaims, g.addr())
		d.RemovedNodes = append(d.RemovedNodes, ax.NodeName(fmt.Sprint("n", g.IntN(4))))
		d.RemovedPolicies = append(d.RemovedPolicies, fmt.Sprint("p", g.IntN(4)))
	}
	if g.IntN(3) == 0 {
		d.Nodes = append(d.Nodes, ax.Node{Name: ax.NodeName(fmt.Sprint("n", g.IntN(4))), Addr: g.addr(), ReservedPorts: []uint16{uint16(80 + g.IntN(3))}})
		d.Policies = append(d.Policies, g.policy(fmt.Sprint("p", g.IntN(4))))
	}
	return d
}

// everywhere decides every flow of the universe. The endpoint counts by its id: which of equals is chosen is chance.
func everywhere(s *route.Snapshot, labels ax.Labels) []string {
	var out []string
	for _, prefix := range [][3]byte{{1, 1, 1}, {10, 0, 2}} {
		for last := range byte(4) {
			for _, port := range []uint16{80, 81, 82, 40000, 40001, 40002, 40003} {
				for _, proto := range []ax.Protocol{ax.TCP, ax.UDP} {
					a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{prefix[0], prefix[1], prefix[2], last}), port)
					d, candidates := route.Explain(s, ax.Flow{Labels: labels, Proto: proto, Dest: a})
					text := fmt.Sprint(proto, a, d.Verdict, d.Reason, d.Policy, d.Audit, s.Claimed(a.Addr()))
					for _, c := range candidates {
						text += fmt.Sprint(" ", *c.Endpoint, c.Eligible, c.Reason, c.Policy, c.Audit)
					}
					out = append(out, text)
				}
			}
		}
	}
	return out
}

// TestIncremental: whatever the deltas, applying them one by one, in one Full, or by Diff gives the same snapshot, and
// none of them changes a snapshot that was made before.
func TestIncremental(t *testing.T) {
	for seed := range uint64(15) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		s, m := route.Empty(), newModel()
		type memory struct {
			snapshot *route.Snapshot
			full     route.Delta
		}
		var past []memory
		for r := ax.Revision(1); r <= 60; r++ {
			d := g.delta(r)
			s = s.Apply(d)
			m.apply(d)
			full := m.full(r)
			if got := s.Full(); !reflect.DeepEqual(normal(got), normal(full)) {
				t.Fatalf("seed %d, revision %d: incremental\n%+v\nmodel\n%+v", seed, r, got, full)
			}
			past = append(past, memory{s, full})
		}
		at := past[len(past)-1]
		once := route.Empty().Apply(at.full)
		if s.Size() != once.Size() {
			t.Fatalf("seed %d: size %+v, want %+v", seed, s.Size(), once.Size())
		}
		labels := g.labels()
		if got, want := everywhere(s, labels), everywhere(once, labels); !slices.Equal(got, want) {
			t.Fatalf("seed %d: incremental decides\n%q\nat once\n%q", seed, got, want)
		}
		for i, p := range past {
			if !reflect.DeepEqual(normal(p.snapshot.Full()), normal(p.full)) {
				t.Fatalf("seed %d: snapshot %d was changed by a later delta", seed, i+1)
			}
			other := past[g.IntN(len(past))]
			moved := p.snapshot.Apply(route.Diff(p.snapshot, other.snapshot))
			if !reflect.DeepEqual(normal(moved.Full()), normal(other.full)) {
				t.Fatalf("seed %d: the difference from %d to %d leads elsewhere", seed, i+1, other.full.Revision)
			}
			if got, want := everywhere(moved, labels), everywhere(other.snapshot, labels); !slices.Equal(got, want) {
				t.Fatalf("seed %d: the difference from %d to %d decides otherwise", seed, i+1, other.full.Revision)
			}
			if moved.Size() != other.snapshot.Size() {
				t.Fatalf("seed %d: size %+v, want %+v", seed, moved.Size(), other.snapshot.Size())
			}
		}
	}
}

// normal makes empty and nil slices equal.
func normal(d route.Delta) route.Delta {
	v := reflect.ValueOf(&d).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.Len() == 0 {
			f.SetZero()
		}
	}
	return d
}

func TestApplySharesStructure(t *testing.T) {
	s := route.Empty().Apply(bigTable(50000))
	d := route.Delta{Revision: 2, Upserts: []route.Service{bigService(77, 4)}}
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		s.Apply(d)
	}
	runtime.ReadMemStats(&after)
	const limit = 64 << 10 // a copy of the table would be several megabytes
	if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > limit {
		t.Errorf("one service of 50,000 endpoints changed: %d bytes were allocated, want at most %d", got, limit)
	}
	next := s.Apply(d)
	if diff := route.Diff(s, next); len(diff.Upserts) != 1 || len(diff.Removes)+len(diff.Claims)+len(diff.Nodes) != 0 || diff.Full {
		t.Errorf("difference %+v, want the one service", diff)
	}
	if !route.Diff(next, next).Empty() {
		t.Error("a snapshot differs from itself")
	}
}

// TestApplyIsLenient: what a delta should not contain does no harm.
func TestApplyIsLenient(t *testing.T) {
	a, b := endpoint("a", "1.1.1.1:80", "10.0.2.1:1", prod), endpoint("b", "1.1.1.1:80", "10.0.2.1:2", prod)
	mapped := service("1.1.1.1:80", ax.RoundRobin, b, nil, a, b)
	mapped.Key.Addr = netip.MustParseAddrPort("[::ffff:1.1.1.1]:80")
	in := slices.Clone(mapped.Endpoints)
	s := route.Empty().Apply(route.Delta{Upserts: []route.Service{mapped}})
	svc, ok := s.Service(service("1.1.1.1:80", ax.RoundRobin).Key)
	if !ok || !slices.Equal(svc.Endpoints, []*ax.Endpoint{a, b}) {
		t.Errorf("service %+v, want endpoints a and b", svc)
	}
	if !slices.Equal(mapped.Endpoints, in) {
		t.Error("Apply changed the delta")
	}
	if _, ok := s.Node("nobody"); ok {
		t.Error("there is a node nobody")
	}
	s.Apply(route.Delta{Upserts: make([]route.Service, 2), Removes: make([]route.ServiceKey, 2), Claims: make([]netip.Addr, 1), Nodes: make([]ax.Node, 1)})
}

func FuzzApplyDecide(f *testing.F) {
	f.Add(uint64(1), []byte{0, 1, 2, 3}, "1.1.1.1:80", "k0")
	f.Add(uint64(2), []byte{9, 9}, "10.0.2.1:40001", "")
	f.Add(uint64(3), []byte{}, "[::ffff:1.1.1.1]:80", "k1")
	f.Add(uint64(4), []byte{2}, "[fe80::1%eth0]:80", "k1")
	f.Fuzz(func(t *testing.T, seed uint64, steps []byte, dest, key string) {
		steps = steps[:min(len(steps), 40)] // more are slow, and find nothing new
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		a, _ := netip.ParseAddrPort(dest) // an invalid one is of interest too
		flow := ax.Flow{Labels: ax.Labels{key: "v0"}, Proto: ax.Protocol(seed % 4), Dest: a}
		s, d := route.Empty(), route.NewDecider(route.Config{})
		for i, step := range steps {
			delta := g.delta(ax.Revision(i))
			if step&1 != 0 { // a destination of the universe, or the fuzzer's own with a service
				delta.Upserts = append(delta.Upserts, g.service(route.ServiceKey{Proto: flow.Proto, Addr: a}))
			}
			if step&2 != 0 {
				delta.Claims = append(delta.Claims, a.Addr())
			}
			s = s.Apply(delta).Suspect(ax.NodeName(fmt.Sprint("n", step%5)))
			var tried []ax.EndpointID
			for {
				got := d.Decide(s, flow, tried)
				if (got.Verdict == ax.Allow) != (got.Endpoint != nil) || got.Reason == "" {
					t.Fatalf("decision %+v", got)
				}
				if explained, _ := route.Explain(s, flow); len(tried) == 0 && explained.Verdict != got.Verdict {
					t.Fatalf("decided %v, explained %v", got.Verdict, explained.Verdict)
				}
				if got.Endpoint == nil {
					break
				}
				if slices.Contains(tried, got.Endpoint.ID) {
					t.Fatalf("%s was chosen again", got.Endpoint.ID)
				}
				tried = append(tried, got.Endpoint.ID)
			}
			if s.Claimed(a.Addr()) && d.Decide(s, flow, nil).Verdict == ax.Passthrough {
				t.Fatalf("%s is virtual and passes", a)
			}
		}
	})
}
