package build_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/router/internal/build"
)

func endpoint(id, service string) ax.Endpoint {
	return ax.Endpoint{
		ID: ax.EndpointID(id), App: "0000000a", Node: "n1", Proto: ax.TCP, Service: netip.MustParseAddrPort(service),
		Host: netip.MustParseAddrPort("10.0.2.1:40000"), Labels: ax.DefaultLabels(),
	}
}

func vservice(name, addr string, ports []ax.PortMapping, backends ...string) ax.VirtualService {
	v := ax.VirtualService{Name: name, Addr: netip.MustParseAddr(addr), Balancer: ax.RoundRobin, Ports: ports}
	for _, b := range backends {
		text, weight, weighed := strings.Cut(b, "=")
		backend, err := ax.ParseBackend(text)
		if err != nil {
			panic(err)
		}
		if weighed {
			backend.Weight = uint16(weight[0] - '0')
		}
		v.Backends = append(v.Backends, backend)
	}
	return v
}

func to(virtual, backend uint16) ax.PortMapping {
	return ax.PortMapping{Virtual: virtual, Backend: backend}
}

// put makes the change that stores a value.
func put(v any) watch.Change {
	c := watch.Change{Value: v}
	switch v := v.(type) {
	case ax.Node:
		c.Kind, c.Key = registryv1.Kind_KIND_NODE, string(v.Name)
	case ax.App:
		c.Kind, c.Key = registryv1.Kind_KIND_APP, string(v.ID)
	case ax.Endpoint:
		c.Kind, c.Key = registryv1.Kind_KIND_ENDPOINT, string(v.ID)
	case ax.VirtualService:
		c.Kind, c.Key = registryv1.Kind_KIND_VIRTUAL_SERVICE, v.Name
	case ax.Policy:
		c.Kind, c.Key = registryv1.Kind_KIND_POLICY, v.Name
	case ax.Claim:
		c.Kind, c.Key = registryv1.Kind_KIND_ADDRESS_CLAIM, v.Addr.String()
	default:
		panic(fmt.Sprintf("%T is no record", v))
	}
	return c
}

func del(v any) watch.Change {
	c := put(v)
	c.Value = nil
	return c
}

func event(r ax.Revision, changes ...watch.Change) watch.Event {
	return watch.Event{Revision: r, Changes: changes}
}

// describe writes a delta's services as "1.1.1.1:80/tcp RoundRobin a b" and "-1.1.1.1:80/tcp".
func describe(d route.Delta) []string {
	var out []string
	for _, s := range d.Upserts {
		text := fmt.Sprintf("%s/%s %s", s.Key.Addr, s.Key.Proto, s.Balancer)
		for i, e := range s.Endpoints {
			text += " " + string(e.ID)
			if s.Weights != nil {
				text += fmt.Sprint("=", s.Weights[i])
			}
		}
		out = append(out, text)
	}
	for _, k := range d.Removes {
		out = append(out, fmt.Sprintf("-%s/%s", k.Addr, k.Proto))
	}
	slices.Sort(out)
	return out
}

func TestServices(t *testing.T) {
	a, b, c := endpoint("a", "1.1.1.1:80"), endpoint("b", "1.1.1.1:80"), endpoint("c", "2.2.2.2:8080")
	cases := []struct {
		name  string
		given []watch.Change
		then  []watch.Change
		want  []string // of the second delta
	}{
		{"first endpoint", nil, []watch.Change{put(a)}, []string{"1.1.1.1:80/tcp Random a"}},
		{"second endpoint", []watch.Change{put(a), put(c)}, []watch.Change{put(b)}, []string{"1.1.1.1:80/tcp Random a b"}},
		{"one of two leaves", []watch.Change{put(a), put(b), put(c)}, []watch.Change{del(a)}, []string{"1.1.1.1:80/tcp Random b"}},
		{"last leaves", []watch.Change{put(a), put(c)}, []watch.Change{del(a)}, []string{"-1.1.1.1:80/tcp"}},
		{"unknown leaves", []watch.Change{put(a)}, []watch.Change{del(b)}, nil},
		{"endpoint moves", []watch.Change{put(a), put(b)}, []watch.Change{put(endpoint("a", "3.3.3.3:80"))}, []string{"1.1.1.1:80/tcp Random b", "3.3.3.3:80/tcp Random a"}},
		{"comes and goes in one event", []watch.Change{put(c)}, []watch.Change{put(a), del(a)}, nil},
		{"nothing new", []watch.Change{put(a), put(c), put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, []watch.Change{put(a), put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, nil},
		{"an application touches no service", []watch.Change{put(a)}, []watch.Change{put(ax.App{ID: "0000000a", Addr: netip.MustParseAddr("1.1.1.1")})}, nil},

		{"vservice on known backend", []watch.Change{put(c), put(a)}, []watch.Change{put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, []string{"9.9.9.9:8080/tcp RoundRobin c"}},
		{"vservice with ports", []watch.Change{put(c)}, []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(80, 8080), to(81, 8081)}, "2.2.2.2"))}, []string{"9.9.9.9:80/tcp RoundRobin c"}},
		{"vservice with two ports to one", []watch.Change{put(c)}, []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(80, 8080), to(81, 8080)}, "2.2.2.2"))}, []string{"9.9.9.9:80/tcp RoundRobin c", "9.9.9.9:81/tcp RoundRobin c"}},
		{"vservice of two backends", []watch.Change{put(a), put(c)}, []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(443, 80)}, "1.1.1.1", "2.2.2.2", "3.3.3.3"))}, []string{"9.9.9.9:443/tcp RoundRobin a"}},
		{"vservice on unknown backend", []watch.Change{put(a)}, []watch.Change{put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, nil},
		{"backend comes later", []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(80, 8080)}, "2.2.2.2"))}, []watch.Change{put(c)}, []string{"2.2.2.2:8080/tcp Random c", "9.9.9.9:80/tcp RoundRobin c"}},
		{"backend leaves", []watch.Change{put(c), put(vservice("v", "9.9.9.9", []ax.PortMapping{to(80, 8080)}, "2.2.2.2"))}, []watch.Change{del(c)}, []string{"-2.2.2.2:8080/tcp", "-9.9.9.9:80/tcp"}},
		{"vservice leaves", []watch.Change{put(c), put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, []watch.Change{del(vservice("v", "9.9.9.9", nil))}, []string{"-9.9.9.9:8080/tcp"}},
		{"vservice moves", []watch.Change{put(c), put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, []watch.Change{put(vservice("v", "9.9.9.8", nil, "2.2.2.2"))}, []string{"-9.9.9.9:8080/tcp", "9.9.9.8:8080/tcp RoundRobin c"}},
		{"vservice and backend in one event", nil, []watch.Change{put(vservice("v", "9.9.9.9", nil, "2.2.2.2")), put(c)}, []string{"2.2.2.2:8080/tcp Random c", "9.9.9.9:8080/tcp RoundRobin c"}},

		{"redirect", []watch.Change{put(a), put(endpoint("n", "2.2.2.2:80"))}, []watch.Change{put(vservice("v", "1.1.1.1", nil, "2.2.2.2"))}, []string{"1.1.1.1:80/tcp RoundRobin n"}},
		{"redirect before the new one serves", []watch.Change{put(a)}, []watch.Change{put(vservice("v", "1.1.1.1", nil, "2.2.2.2"))}, []string{"-1.1.1.1:80/tcp"}},
		{"redirect ends", []watch.Change{put(a), put(endpoint("n", "2.2.2.2:80")), put(vservice("v", "1.1.1.1", nil, "2.2.2.2"))}, []watch.Change{del(vservice("v", "1.1.1.1", nil))}, []string{"1.1.1.1:80/tcp Random a"}},
		{"old and new together", []watch.Change{put(a), put(endpoint("n", "2.2.2.2:80"))}, []watch.Change{put(vservice("v", "1.1.1.1", nil, "2.2.2.2", "1.1.1.1"))}, []string{"1.1.1.1:80/tcp RoundRobin a n"}},
		{"redirect of another port", []watch.Change{put(a), put(c)}, []watch.Change{put(vservice("v", "1.1.1.1", []ax.PortMapping{to(81, 8080)}, "2.2.2.2"))}, []string{"1.1.1.1:80/tcp Random a", "1.1.1.1:81/tcp RoundRobin c"}},
		{"addresses exchanged", []watch.Change{put(a), put(endpoint("n", "2.2.2.2:80"))}, []watch.Change{put(vservice("v", "1.1.1.1", nil, "2.2.2.2")), put(vservice("w", "2.2.2.2", nil, "1.1.1.1"))}, []string{"1.1.1.1:80/tcp RoundRobin n", "2.2.2.2:80/tcp RoundRobin a"}},
		{"a vservice is no backend", []watch.Change{put(c), put(vservice("v", "9.9.9.9", nil, "2.2.2.2"))}, []watch.Change{put(vservice("w", "9.9.9.8", nil, "9.9.9.9"))}, nil},
		{"two vservices on one address", []watch.Change{put(a), put(c)}, []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(80, 80)}, "1.1.1.1")), put(vservice("w", "9.9.9.9", []ax.PortMapping{to(81, 8080)}, "2.2.2.2"))}, []string{"9.9.9.9:80/tcp RoundRobin a", "9.9.9.9:81/tcp RoundRobin c"}},
		{"backend with a port", []watch.Change{put(a), put(endpoint("n", "1.1.1.1:81"))}, []watch.Change{put(vservice("v", "9.9.9.9", nil, "1.1.1.1:81"))}, []string{"9.9.9.9:81/tcp RoundRobin n", "9.9.9.9:81/udp RoundRobin external/udp/1.1.1.1:81"}},
		{"its port wins over the mapping", []watch.Change{put(a), put(c)}, []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(443, 80)}, "1.1.1.1", "2.2.2.2:8080"))}, []string{"9.9.9.9:443/tcp RoundRobin a c", "9.9.9.9:443/udp RoundRobin external/udp/2.2.2.2:8080"}},
		{"outside", nil, []watch.Change{put(vservice("v", "9.9.9.9", []ax.PortMapping{to(443, 80)}, "8.8.8.8:8443", "8.8.4.4:*"))}, []string{"9.9.9.9:443/tcp RoundRobin external/tcp/8.8.4.4:80 external/tcp/8.8.8.8:8443", "9.9.9.9:443/udp RoundRobin external/udp/8.8.4.4:80 external/udp/8.8.8.8:8443"}},
		{"comes inside", []watch.Change{put(vservice("v", "9.9.9.9", nil, "2.2.2.2:8080"))}, []watch.Change{put(c)}, []string{"2.2.2.2:8080/tcp Random c", "9.9.9.9:8080/tcp RoundRobin c"}},
		{"goes outside", []watch.Change{put(vservice("v", "9.9.9.9", nil, "2.2.2.2:8080")), put(c)}, []watch.Change{del(c)}, []string{"-2.2.2.2:8080/tcp", "9.9.9.9:8080/tcp RoundRobin external/tcp/2.2.2.2:8080"}},
		{"outside leaves", []watch.Change{put(vservice("v", "9.9.9.9", nil, "8.8.8.8:80"))}, []watch.Change{del(vservice("v", "9.9.9.9", nil))}, []string{"-9.9.9.9:80/tcp", "-9.9.9.9:80/udp"}},
		{"weights", []watch.Change{put(a), put(endpoint("b", "2.2.2.2:80"))}, []watch.Change{put(vservice("v", "9.9.9.9", nil, "1.1.1.1=3", "2.2.2.2"))}, []string{"9.9.9.9:80/tcp RoundRobin a=3 b=1"}},
		{"equal weights are none", []watch.Change{put(a), put(endpoint("b", "2.2.2.2:80"))}, []watch.Change{put(vservice("v", "9.9.9.9", nil, "1.1.1.1=3", "2.2.2.2=3"))}, []string{"9.9.9.9:80/tcp RoundRobin a b"}},
		{"the weight changes", []watch.Change{put(a), put(endpoint("b", "2.2.2.2:80")), put(vservice("v", "9.9.9.9", nil, "1.1.1.1=3", "2.2.2.2"))}, []watch.Change{put(vservice("v", "9.9.9.9", nil, "1.1.1.1", "2.2.2.2=2"))}, []string{"9.9.9.9:80/tcp RoundRobin a=1 b=2"}},
		{"vservice without an address yet", []watch.Change{put(c)}, []watch.Change{put(ax.VirtualService{Name: "v", Backends: []ax.Backend{{Addr: netip.MustParseAddr("2.2.2.2"), Weight: 1}}})}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := build.New()
			b.Apply(event(1, c.given...))
			d := b.Apply(event(2, c.then...))
			if got := describe(d); !slices.Equal(got, c.want) {
				t.Errorf("delta %q, want %q", got, c.want)
			}
			if d.Revision != 2 || d.Full {
				t.Errorf("revision %d, full %v", d.Revision, d.Full)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	addr := netip.MustParseAddr("9.9.9.9")
	claim, v := ax.Claim{Addr: addr}, vservice("v", "9.9.9.9", nil, "2.2.2.2")
	b := build.New()
	steps := []struct {
		change            watch.Change
		claimed, released int
	}{
		{put(v), 1, 0}, {put(claim), 0, 0}, {del(v), 0, 0}, {del(claim), 0, 1}, {put(claim), 1, 0}, {put(v), 0, 0}, {del(claim), 0, 0}, {del(v), 0, 1},
	}
	for i, s := range steps {
		d := b.Apply(event(ax.Revision(i), s.change))
		if len(d.Claims) != s.claimed || len(d.ReleasedClaims) != s.released {
			t.Errorf("step %d: claims %v, released %v; want %d and %d", i, d.Claims, d.ReleasedClaims, s.claimed, s.released)
		}
	}
}

func TestNodesAndPolicies(t *testing.T) {
	b := build.New()
	n, p := ax.Node{Name: "n", Addr: netip.MustParseAddr("10.0.2.1")}, ax.Policy{Name: "p", Action: ax.PolicyDeny}
	d := b.Apply(event(1, put(n), put(p)))
	if again := b.Apply(event(1, put(n), put(p))); !again.Empty() {
		t.Errorf("put again: %+v", again)
	}
	if len(d.Nodes) != 1 || len(d.Policies) != 1 || len(d.RemovedNodes)+len(d.RemovedPolicies) != 0 {
		t.Errorf("put: %+v", d)
	}
	d = b.Apply(event(2, put(p), del(p), del(n), put(n)))
	if len(d.Nodes) != 1 || len(d.Policies) != 0 || len(d.RemovedNodes) != 0 || !slices.Equal(d.RemovedPolicies, []string{"p"}) {
		t.Errorf("the last change of an event does not win: %+v", d)
	}
}

// universe makes random changes that meet.
type universe struct{ *rand.Rand }

func (u universe) addr() netip.Addr { return netip.AddrFrom4([4]byte{1, 1, 1, byte(u.IntN(5))}) }

func (u universe) change() watch.Change {
	var v any
	switch u.IntN(6) {
	case 0, 1:
		e := endpoint(fmt.Sprint("e", u.IntN(8)), "1.1.1.1:80")
		e.Service, e.Proto = netip.AddrPortFrom(u.addr(), uint16(80+u.IntN(3))), ax.Protocol(1+u.IntN(2))
		v = e
	case 2:
		vs := ax.VirtualService{Name: fmt.Sprint("v", u.IntN(4)), Addr: u.addr(), Balancer: ax.BalancerType(1 + u.IntN(4))}
		for range u.IntN(3) {
			vs.Ports = append(vs.Ports, ax.PortMapping{Virtual: uint16(80 + u.IntN(3)), Backend: uint16(80 + u.IntN(3))})
		}
		for range u.IntN(3) {
			backend := ax.Backend{Addr: u.addr(), Weight: uint16(1 + u.IntN(3))}
			switch u.IntN(4) {
			case 0:
				backend.Port = uint16(80 + u.IntN(3))
			case 1:
				backend.External = true
			}
			vs.Backends = append(vs.Backends, backend)
		}
		v = vs
	case 3:
		v = ax.Claim{Addr: u.addr()}
	case 4:
		v = ax.Node{Name: ax.NodeName(fmt.Sprint("n", u.IntN(3))), Addr: u.addr()}
	case 5:
		v = ax.Policy{Name: fmt.Sprint("p", u.IntN(3)), Action: ax.PolicyAction(1 + u.IntN(2))}
	}
	if u.IntN(3) == 0 {
		return del(v)
	}
	return put(v)
}

// TestIncremental: following the changes leads to the same routes as starting with the resulting table, and no delta
// says what is known already.
func TestIncremental(t *testing.T) {
	for seed := range uint64(100) {
		u := universe{rand.New(rand.NewPCG(seed, 1))}
		b, s, table := build.New(), route.Empty(), watch.NewTable()
		lagging, behind := build.New(), route.Empty() // sees lists only
		for r := ax.Revision(1); r <= 80; r++ {
			e := event(r)
			for range 1 + u.IntN(4) {
				e.Changes = append(e.Changes, u.change())
			}
			table.Apply(e)
			s = s.Apply(b.Apply(e))
			fresh := route.Empty().Apply(build.New().Replace(table.Clone()))
			compare(t, fmt.Sprint("seed ", seed, ", revision ", r), s, fresh)
			if u.IntN(10) == 0 {
				behind = behind.Apply(lagging.Replace(table.Clone()))
				compare(t, fmt.Sprint("seed ", seed, ", list at revision ", r), behind, fresh)
			}
		}
		if d := b.Replace(table.Clone()); !d.Empty() {
			t.Fatalf("seed %d: a list of what is known gave %+v", seed, d)
		}
	}
}

func compare(t *testing.T, when string, got, want *route.Snapshot) {
	t.Helper()
	g, w := got.Full(), want.Full()
	if !reflect.DeepEqual(describe(g), describe(w)) || !slices.Equal(g.Claims, w.Claims) || !reflect.DeepEqual(g.Nodes, w.Nodes) ||
		!reflect.DeepEqual(g.Policies, w.Policies) || g.Revision != w.Revision {
		t.Fatalf("%s: incremental\n%+v\nwant\n%+v", when, g, w)
	}
}

// TestCostOfOneChange: in a large table a change of one endpoint costs its services and nothing else.
func TestCostOfOneChange(t *testing.T) {
	table := watch.NewTable()
	for i := range 20000 {
		e := endpoint(fmt.Sprint("e", i), "1.1.1.1:80")
		e.Service = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80)
		table.Endpoints[e.ID] = e
	}
	b := build.New()
	b.Replace(table)
	e := table.Endpoints["e77"]
	n := testing.AllocsPerRun(100, func() {
		e.Stale = !e.Stale
		if d := b.Apply(event(2, put(e))); len(d.Upserts) != 1 || len(d.Removes) != 0 {
			t.Fatalf("delta %+v", d)
		}
	})
	if n > 200 {
		t.Errorf("%v allocations for one endpoint of 20,000", n)
	}
}

func TestLookup(t *testing.T) {
	addr := netip.MustParseAddr
	b := build.New()
	b.Apply(event(1,
		put(ax.App{ID: "0000000a", Name: "web", Addr: addr("1.1.1.1"), Labels: ax.DefaultLabels()}),
		put(ax.App{ID: "0000000b", Name: "web", Addr: addr("1.1.1.2"), Labels: ax.DefaultLabels()}),
		put(ax.App{ID: "0000000c", Name: "db", Addr: addr("1.1.1.3"), Labels: ax.DefaultLabels()}),
		put(ax.App{ID: "0000000d", Name: "db", Addr: addr("1.1.1.3"), Labels: ax.Labels{"role": "db"}}),
		put(ax.App{ID: "0000000e", Name: "<uuid>", Addr: addr("10.0.2.1")}),
		put(ax.Claim{Addr: addr("198.18.0.1"), Name: "gone"}),
		put(vservice("shop", "9.9.9.9", nil)),
	))
	for key, want := range map[string]string{"0000000b": "0000000b", "web": "0000000a", "WEB": "0000000a"} {
		if app, err := b.App(key); err != nil || string(app.ID) != want {
			t.Errorf("App(%q) is %s, %v; want %s", key, app.ID, err, want)
		}
	}
	for key, want := range map[string]string{"nobody": "not in the service table", "": "not in the service table", "<uuid>": "not in the service table", "db": "give an id"} {
		if _, err := b.App(key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("App(%q): %v, want %q", key, err, want)
		}
	}
	for name, want := range map[string]string{"web": "[1.1.1.1 1.1.1.2]", "db": "[1.1.1.3]", "gone": "[198.18.0.1]", "Shop": "[9.9.9.9]", "none": "[]", "": "[]"} {
		if got := fmt.Sprint(b.Addrs(name)); got != want {
			t.Errorf("Addrs(%q) is %s, want %s", name, got, want)
		}
	}
}
