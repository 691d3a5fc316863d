package route_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

// endpoint makes an endpoint on node n<host's last digit>; the id is the name.
func endpoint(id, service, host string, labels ax.Labels) *ax.Endpoint {
	h := netip.MustParseAddrPort(host)
	b := h.Addr().As16()
	return &ax.Endpoint{
		ID: ax.EndpointID(id), App: "0000000a", Node: ax.NodeName(fmt.Sprint("n", b[15])), Proto: ax.TCP,
		Service: netip.MustParseAddrPort(service), Host: h, Labels: labels,
	}
}

func stale(e *ax.Endpoint) *ax.Endpoint {
	c := *e
	c.Stale = true
	return &c
}

func service(addr string, b ax.BalancerType, endpoints ...*ax.Endpoint) route.Service {
	return route.Service{Key: route.ServiceKey{Proto: ax.TCP, Addr: netip.MustParseAddrPort(addr)}, Balancer: b, Endpoints: endpoints}
}

var (
	prod = ax.Labels{"zone": "prod", "tier": "db"}
	test = ax.Labels{"zone": "test"}
)

// world has two nodes, a service of two labels, one behind another port, one on a node's address, and a bare claim.
func world() route.Delta {
	return route.Delta{
		Revision: 7, Full: true,
		Nodes: []ax.Node{
			{Name: "n1", Addr: netip.MustParseAddr("10.0.2.1"), ReservedPorts: []uint16{6665, 53}},
			{Name: "n2", Addr: netip.MustParseAddr("10.0.2.2"), ReservedPorts: []uint16{6665}},
		},
		Claims: []netip.Addr{netip.MustParseAddr("1.1.1.9"), netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("2001:db8::9")},
		Upserts: []route.Service{
			service("1.1.1.1:80", ax.RoundRobin, endpoint("a", "1.1.1.1:80", "10.0.2.1:40001", prod), endpoint("b", "1.1.1.1:80", "10.0.2.2:40001", prod)),
			service("1.1.1.2:5432", ax.Random, endpoint("c", "1.1.1.2:5432", "10.0.2.1:40002", test)),
			service("1.1.1.3:80", ax.Random, endpoint("c", "1.1.1.2:5432", "10.0.2.1:40002", test)), // a virtual service
			service("10.0.2.2:8000", ax.Random, endpoint("d", "10.0.2.2:8000", "10.0.2.2:40003", prod)),
			service("1.1.1.4:80", ax.Random, stale(endpoint("e", "1.1.1.4:80", "10.0.2.1:40004", prod))),
			service("1.1.1.5:80", ax.Random, stale(endpoint("f", "1.1.1.5:80", "10.0.2.1:40005", prod)), endpoint("g", "1.1.1.5:80", "10.0.2.2:40005", prod)),
			service("1.1.1.6:80", ax.Random, endpoint("h", "1.1.1.6:80", "10.0.2.1:40006", nil)),
			service("10.0.2.2:6665", ax.Random, endpoint("i", "10.0.2.2:6665", "10.0.2.2:40007", prod)), // hides a reserved port
			service("[2001:db8::1]:80", ax.Random, endpoint("j", "[2001:db8::1]:80", "10.0.2.1:40008", prod)),
		},
	}
}

func policy(name string, action ax.PolicyAction, from, to ax.Labels, ports ...uint16) ax.Policy {
	p := ax.Policy{Name: name, Action: action, From: from.Selector(), To: to.Selector()}
	for _, port := range ports {
		p.Ports = append(p.Ports, ax.PortRange{First: port, Last: port})
	}
	return p
}

func TestDecide(t *testing.T) {
	type tried = []ax.EndpointID
	denyAll := policy("deny-all", ax.PolicyDeny, nil, nil)
	allowAll := policy("allow-all", ax.PolicyAllow, nil, nil)
	cases := []struct {
		name     string
		labels   ax.Labels
		dest     string
		udp      bool
		tried    tried
		policies []ax.Policy
		suspects []ax.NodeName
		verdict  ax.Verdict
		reason   ax.Reason
		policy   string
		endpoint string // one of these letters
	}{
		{name: "reserved port of a node", labels: prod, dest: "10.0.2.1:6665", verdict: ax.Deny, reason: ax.ReasonReservedPort},
		{name: "reserved wins over a service", labels: prod, dest: "10.0.2.2:6665", verdict: ax.Deny, reason: ax.ReasonReservedPort},
		{name: "reserved wins over an allow policy", labels: prod, dest: "10.0.2.1:53", udp: true, policies: []ax.Policy{allowAll}, verdict: ax.Deny, reason: ax.ReasonReservedPort},
		{name: "reserved on another node only", labels: prod, dest: "10.0.2.2:53", verdict: ax.Passthrough, reason: ax.ReasonExternal},
		{name: "reserved, mapped address", labels: prod, dest: "[::ffff:10.0.2.1]:6665", verdict: ax.Deny, reason: ax.ReasonReservedPort},

		{name: "shared label", labels: prod, dest: "1.1.1.1:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "ab"},
		{name: "shared label, mapped address", labels: prod, dest: "[::ffff:1.1.1.1]:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "ab"},
		{name: "shared label, IPv6", labels: prod, dest: "[2001:db8::1]:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "j"},
		{name: "one of two labels", labels: ax.Labels{"zone": "x", "tier": "db"}, dest: "1.1.1.1:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "ab"},
		{name: "same key, other value", labels: test, dest: "1.1.1.1:80", verdict: ax.Deny, reason: ax.ReasonNoLabel},
		{name: "no labels share nothing", dest: "1.1.1.1:80", verdict: ax.Deny, reason: ax.ReasonNoLabel},
		{name: "no labels on either side share nothing", dest: "1.1.1.6:80", verdict: ax.Deny, reason: ax.ReasonNoLabel},

		{name: "deny policy", labels: prod, dest: "1.1.1.1:80", policies: []ax.Policy{denyAll}, verdict: ax.Deny, reason: ax.ReasonPolicyDeny, policy: "deny-all"},
		{name: "deny wins over allow", labels: prod, dest: "1.1.1.1:80", policies: []ax.Policy{allowAll, denyAll}, verdict: ax.Deny, reason: ax.ReasonPolicyDeny, policy: "deny-all"},
		{name: "allow wins over labels", labels: test, dest: "1.1.1.1:80", policies: []ax.Policy{policy("p", ax.PolicyAllow, test, prod)}, verdict: ax.Allow, reason: ax.ReasonPolicyAllow, policy: "p", endpoint: "ab"},
		{name: "allow for another client", labels: test, dest: "1.1.1.1:80", policies: []ax.Policy{policy("p", ax.PolicyAllow, prod, prod)}, verdict: ax.Deny, reason: ax.ReasonNoLabel},
		{name: "selector wants all labels", labels: test, dest: "1.1.1.1:80", policies: []ax.Policy{policy("p", ax.PolicyAllow, nil, ax.Labels{"zone": "prod", "tier": "web"})}, verdict: ax.Deny, reason: ax.ReasonNoLabel},
		{name: "deny on another port", labels: prod, dest: "1.1.1.1:80", policies: []ax.Policy{policy("p", ax.PolicyDeny, nil, nil, 81, 82)}, verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "ab"},
		{name: "deny on this port", labels: prod, dest: "1.1.1.1:80", policies: []ax.Policy{policy("p", ax.PolicyDeny, nil, nil, 81, 80)}, verdict: ax.Deny, reason: ax.ReasonPolicyDeny, policy: "p"},
		{name: "a virtual service is no way around a policy", labels: test, dest: "1.1.1.3:80", policies: []ax.Policy{policy("p", ax.PolicyDeny, nil, nil, 5432)}, verdict: ax.Deny, reason: ax.ReasonPolicyDeny, policy: "p"},
		{name: "virtual service", labels: test, dest: "1.1.1.3:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "c"},

		{name: "tried one", labels: prod, dest: "1.1.1.1:80", tried: tried{"a"}, verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "b"},
		{name: "tried all", labels: prod, dest: "1.1.1.1:80", tried: tried{"a", "b"}, verdict: ax.Deny, reason: ax.ReasonTried},
		{name: "tried all, random", labels: test, dest: "1.1.1.2:5432", tried: tried{"c"}, verdict: ax.Deny, reason: ax.ReasonTried},
		{name: "tried, but not allowed anyway", labels: test, dest: "1.1.1.1:80", tried: tried{"a", "b"}, verdict: ax.Deny, reason: ax.ReasonNoLabel},
		{name: "only a stale one", labels: prod, dest: "1.1.1.4:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "e"},
		{name: "fresh before stale", labels: prod, dest: "1.1.1.5:80", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "g"},
		{name: "stale after fresh was tried", labels: prod, dest: "1.1.1.5:80", tried: tried{"g"}, verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "f"},
		{name: "suspect node", labels: prod, dest: "1.1.1.1:80", suspects: []ax.NodeName{"n1"}, verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "b"},
		{name: "all nodes suspect", labels: prod, dest: "1.1.1.1:80", suspects: []ax.NodeName{"n1", "n2"}, verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "ab"},
		{name: "stale and suspect", labels: prod, dest: "1.1.1.4:80", suspects: []ax.NodeName{"n1"}, verdict: ax.Deny, reason: ax.ReasonNoEndpoint},

		{name: "host address", labels: prod, dest: "10.0.2.1:40001", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "a"},
		{name: "host address, no label", labels: test, dest: "10.0.2.1:40001", verdict: ax.Deny, reason: ax.ReasonNoLabel},
		{name: "host address, policy by service port", labels: prod, dest: "10.0.2.1:40001", policies: []ax.Policy{policy("p", ax.PolicyDeny, nil, nil, 80)}, verdict: ax.Deny, reason: ax.ReasonPolicyDeny, policy: "p"},
		{name: "host address, tried", labels: prod, dest: "10.0.2.1:40001", tried: tried{"a"}, verdict: ax.Deny, reason: ax.ReasonTried},
		{name: "host address behind two services", labels: test, dest: "10.0.2.1:40002", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "c"},
		{name: "host address, other protocol", labels: prod, dest: "10.0.2.1:40001", udp: true, verdict: ax.Passthrough, reason: ax.ReasonExternal},

		{name: "other port of a virtual address", labels: prod, dest: "1.1.1.1:81", verdict: ax.Deny, reason: ax.ReasonNoEndpoint},
		{name: "other protocol of a virtual address", labels: prod, dest: "1.1.1.1:80", udp: true, verdict: ax.Deny, reason: ax.ReasonNoEndpoint},
		{name: "claimed address without services", labels: prod, dest: "1.1.1.9:80", verdict: ax.Deny, reason: ax.ReasonNoEndpoint},
		{name: "claimed address, IPv6", labels: prod, dest: "[2001:db8::9]:80", verdict: ax.Deny, reason: ax.ReasonNoEndpoint},
		{name: "an allow policy makes no endpoint", labels: prod, dest: "1.1.1.9:80", policies: []ax.Policy{allowAll}, verdict: ax.Deny, reason: ax.ReasonNoEndpoint},

		{name: "service on a node's address", labels: prod, dest: "10.0.2.2:8000", verdict: ax.Allow, reason: ax.ReasonLabels, endpoint: "d"},
		{name: "other port of a serving node's address", labels: prod, dest: "10.0.2.2:22", verdict: ax.Passthrough, reason: ax.ReasonExternal},
		{name: "a node's address can't be claimed as a whole", labels: prod, dest: "10.0.2.1:22", verdict: ax.Passthrough, reason: ax.ReasonExternal},
		{name: "external", labels: prod, dest: "93.184.216.34:443", verdict: ax.Passthrough, reason: ax.ReasonExternal},
		{name: "loopback", labels: prod, dest: "127.0.0.1:80", verdict: ax.Passthrough, reason: ax.ReasonLoopback},
		{name: "loopback is not subject to policies", labels: prod, dest: "127.0.0.1:80", policies: []ax.Policy{denyAll}, verdict: ax.Passthrough, reason: ax.ReasonLoopback},
		{name: "loopback of IPv6", labels: prod, dest: "[::1]:80", verdict: ax.Passthrough, reason: ax.ReasonLoopback},
		{name: "a policy that names no destination covers the outside", labels: prod, dest: "93.184.216.34:443", policies: []ax.Policy{denyAll}, verdict: ax.Deny, reason: ax.ReasonPolicyDeny, policy: "deny-all"},
		{name: "a policy about servers does not", labels: prod, dest: "93.184.216.34:443", policies: []ax.Policy{policy("p", ax.PolicyDeny, nil, prod)}, verdict: ax.Passthrough, reason: ax.ReasonExternal},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := route.Empty().Apply(world()).Apply(route.Delta{Revision: 8, Policies: c.policies}).Suspect(c.suspects...)
			f := ax.Flow{App: "0000000b", Labels: c.labels, Proto: ax.TCP, Dest: netip.MustParseAddrPort(c.dest)}
			if c.udp {
				f.Proto = ax.UDP
			}
			d := route.NewDecider(route.Config{})
			for range 5 { // whatever the turn
				got := d.Decide(s, f, c.tried)
				check := func(from string, got ax.Decision) {
					t.Helper()
					if got.Verdict != c.verdict || got.Reason != c.reason || got.Policy != c.policy || got.Revision != 8 {
						t.Fatalf("%s: %v %q policy %q revision %d, want %v %q policy %q revision 8", from, got.Verdict, got.Reason, got.Policy, got.Revision, c.verdict, c.reason, c.policy)
					}
					if (got.Endpoint != nil) != (c.endpoint != "") || got.Endpoint != nil && !slices.Contains([]byte(c.endpoint), got.Endpoint.ID[0]) {
						t.Fatalf("%s: endpoint %v, want one of %q", from, got.Endpoint, c.endpoint)
					}
				}
				check("Decide", got)
				if c.tried == nil {
					explained, _ := route.Explain(s, f)
					check("Explain", explained)
				}
			}
		})
	}
}

func TestDecideWithoutSnapshot(t *testing.T) {
	f := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")}
	if got := route.NewDecider(route.Config{}).Decide(nil, f, nil); got.Verdict != ax.Deny || got.Reason != ax.ReasonNoSnapshot || got.ErrnoName() != "ENETDOWN" {
		t.Fatalf("without a snapshot: %+v", got)
	}
	if got, candidates := route.Explain(nil, f); got.Reason != ax.ReasonNoSnapshot || candidates != nil {
		t.Fatalf("explained without a snapshot: %+v %v", got, candidates)
	}
	if got := route.NewDecider(route.Config{}).Decide(route.Empty(), f, nil); got.Verdict != ax.Passthrough {
		t.Fatalf("empty snapshot: %+v", got)
	}
}

// TestSticky: an address is virtual as long as it is claimed or serves, in whatever order that ends.
func TestSticky(t *testing.T) {
	addr := netip.MustParseAddr("1.1.1.1")
	svc := service("1.1.1.1:80", ax.Random, endpoint("a", "1.1.1.1:80", "10.0.2.1:40001", prod))
	serving := route.Empty().Apply(route.Delta{Upserts: []route.Service{svc}})
	both := serving.Apply(route.Delta{Claims: []netip.Addr{addr}})
	claimed := both.Apply(route.Delta{Removes: []route.ServiceKey{svc.Key}})
	emptied := both.Apply(route.Delta{Upserts: []route.Service{service("1.1.1.1:80", ax.Random)}})
	free := claimed.Apply(route.Delta{ReleasedClaims: []netip.Addr{addr}})
	for name, c := range map[string]struct {
		s       *route.Snapshot
		virtual bool
	}{"serving": {serving, true}, "both": {both, true}, "claimed": {claimed, true}, "emptied": {emptied, true}, "free": {free, false}} {
		if got := c.s.Claimed(addr); got != c.virtual {
			t.Errorf("%s: Claimed is %v", name, got)
		}
		if got := c.s.Claimed(netip.MustParseAddr("::ffff:1.1.1.1")); got != c.virtual {
			t.Errorf("%s: Claimed of the mapped address is %v", name, got)
		}
	}
	node := both.Apply(route.Delta{Nodes: []ax.Node{{Name: "n", Addr: addr}}})
	if node.Claimed(addr) {
		t.Error("a node's own address is claimed")
	}
	if !node.Apply(route.Delta{RemovedNodes: []ax.NodeName{"n"}}).Claimed(addr) {
		t.Error("the claim did not come back when the node left")
	}
}

func TestHostEndpoint(t *testing.T) {
	s := route.Empty().Apply(world())
	host := netip.MustParseAddrPort("10.0.2.1:40002")
	if got := s.HostEndpoint(ax.TCP, host); len(got) != 1 || got[0].ID != "c" {
		t.Fatalf("two services of one endpoint: %v", got)
	}
	s = s.Apply(route.Delta{Removes: []route.ServiceKey{service("1.1.1.2:5432", ax.Random).Key}})
	if got := s.HostEndpoint(ax.TCP, host); len(got) != 1 {
		t.Fatalf("one service left: %v", got)
	}
	s = s.Apply(route.Delta{Removes: []route.ServiceKey{service("1.1.1.3:80", ax.Random).Key}})
	if got := s.HostEndpoint(ax.TCP, host); got != nil {
		t.Fatalf("no service left: %v", got)
	}
	if got := s.HostEndpoint(ax.UDP, netip.MustParseAddrPort("10.0.2.1:40001")); got != nil {
		t.Fatalf("other protocol: %v", got)
	}
}

func TestExplainCandidates(t *testing.T) {
	s := route.Empty().Apply(route.Delta{
		Revision: 3,
		Policies: []ax.Policy{policy("no-c", ax.PolicyDeny, nil, ax.Labels{"app": "c"})},
		Upserts: []route.Service{service("1.1.1.1:80", ax.RoundRobin,
			endpoint("a", "1.1.1.1:80", "10.0.2.1:1", test), endpoint("b", "1.1.1.1:80", "10.0.2.2:1", prod),
			endpoint("c", "1.1.1.1:80", "10.0.2.3:1", ax.Labels{"zone": "prod", "app": "c"}), stale(endpoint("d", "1.1.1.1:80", "10.0.2.4:1", prod)))},
	})
	d, got := route.Explain(s, ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")})
	if d.Verdict != ax.Allow || d.Endpoint.ID != "b" {
		t.Fatalf("decision %+v", d)
	}
	want := []string{"a false no-shared-label ", "b true shared-label ", "c false policy-deny no-c", "d false stale "}
	for i, c := range got {
		if text := fmt.Sprint(c.Endpoint.ID, " ", c.Eligible, " ", c.Reason, " ", c.Policy); text != want[i] {
			t.Errorf("candidate %q, want %q", text, want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d candidates", len(got))
	}
}

func balanced(t *testing.T, d *route.Decider, s *route.Snapshot, dest string, n int, dead ...ax.EndpointID) map[ax.EndpointID]int {
	t.Helper()
	got := map[ax.EndpointID]int{}
	f := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort(dest)}
	for range n {
		var tried []ax.EndpointID
		for {
			e := d.Decide(s, f, tried).Endpoint
			if e == nil {
				t.Fatalf("denied after %v", tried)
			}
			if !slices.Contains(dead, e.ID) {
				got[e.ID]++
				break
			}
			if tried = append(tried, e.ID); len(tried) > len(dead) {
				t.Fatalf("an endpoint was chosen twice: %v", tried)
			}
		}
	}
	return got
}

func TestRoundRobin(t *testing.T) {
	var endpoints []*ax.Endpoint
	for _, id := range []string{"a", "b", "c", "d"} {
		endpoints = append(endpoints, endpoint(id, "1.1.1.1:80", "10.0.2.1:4000"+fmt.Sprint(len(endpoints)), prod))
	}
	endpoints = append(endpoints, endpoint("x", "1.1.1.1:80", "10.0.2.1:40010", test))
	other := service("1.1.1.2:80", ax.RoundRobin, endpoint("y", "1.1.1.2:80", "10.0.2.1:40011", prod), endpoint("z", "1.1.1.2:80", "10.0.2.1:40012", prod))
	s := route.Empty().Apply(route.Delta{Upserts: []route.Service{service("1.1.1.1:80", ax.RoundRobin, endpoints...), other}})
	d := route.NewDecider(route.Config{})
	for id, n := range balanced(t, d, s, "1.1.1.1:80", 400) {
		if n != 100 {
			t.Errorf("%s was chosen %d times of 400, want 100", id, n)
		}
	}
	// A dead endpoint's share falls to all the others.
	for id, n := range balanced(t, d, s, "1.1.1.1:80", 300, "b") {
		if n != 100 {
			t.Errorf("with b dead %s was chosen %d times of 300, want 100", id, n)
		}
	}
	// Services don't take each other's turns.
	for range 50 {
		one := balanced(t, d, s, "1.1.1.1:80", 2)
		two := balanced(t, d, s, "1.1.1.2:80", 2)
		if len(one) != 2 || len(two) != 2 {
			t.Fatalf("two connects went to %v and %v, want two endpoints each", one, two)
		}
	}
}

func TestRandom(t *testing.T) {
	s := route.Empty().Apply(route.Delta{Upserts: []route.Service{service("1.1.1.1:80", ax.Random,
		endpoint("a", "1.1.1.1:80", "10.0.2.1:1", prod), endpoint("b", "1.1.1.1:80", "10.0.2.2:1", prod), endpoint("c", "1.1.1.1:80", "10.0.2.3:1", prod))}})
	for id, n := range balanced(t, route.NewDecider(route.Config{}), s, "1.1.1.1:80", 9000) {
		if n < 2600 || n > 3400 { // nine standard deviations
			t.Errorf("%s was chosen %d times of 9000", id, n)
		}
	}
	for id, n := range balanced(t, route.NewDecider(route.Config{}), s, "1.1.1.1:80", 6000, "b") {
		if id == "b" || n < 2600 || n > 3400 {
			t.Errorf("with b dead %s was chosen %d times of 6000", id, n)
		}
	}
}

// TestTurnsAreShared: concurrent connects share the turns exactly, on one Decider without locks.
func TestTurnsAreShared(t *testing.T) {
	s := route.Empty().Apply(world())
	d := route.NewDecider(route.Config{})
	var mu sync.Mutex // guards total
	total := map[ax.EndpointID]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got := balanced(t, d, s, "1.1.1.1:80", 1000)
			mu.Lock()
			defer mu.Unlock()
			for id, n := range got {
				total[id] += n
			}
		})
	}
	wg.Wait()
	if total["a"] != 4000 || total["b"] != 4000 {
		t.Fatalf("turns %v, want 4000 each", total)
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	s := route.Empty().Apply(bigTable(800))
	d := route.NewDecider(route.Config{})
	f := ax.Flow{Labels: ax.DefaultLabels(), Proto: ax.TCP, Dest: bigService(7, 0).Key.Addr}
	tried := []ax.EndpointID{bigService(7, 1).Endpoints[0].ID}
	d.Decide(s, f, nil) // the service's first turn
	for name, tried := range map[string][]ax.EndpointID{"first": nil, "retry": tried} {
		if n := testing.AllocsPerRun(1000, func() { d.Decide(s, f, tried) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestLargeServices crosses the sizes at which masks and classes change their form.
func TestLargeServices(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 512, 513, 2000} {
		svc := service("1.1.1.1:80", ax.RoundRobin)
		for i := range n {
			labels := ax.Labels{"zone": "prod", "i": fmt.Sprint(i)} // each a class of its own
			svc.Endpoints = append(svc.Endpoints, endpoint(fmt.Sprintf("%05d", i), "1.1.1.1:80", fmt.Sprintf("10.0.2.1:%d", 1000+i), labels))
		}
		s := route.Empty().Apply(route.Delta{Upserts: []route.Service{svc}})
		if got := balanced(t, route.NewDecider(route.Config{}), s, "1.1.1.1:80", n); len(got) != n {
			t.Errorf("%d endpoints: %d were chosen in as many turns", n, len(got))
		}
		one := ax.Flow{Labels: ax.Labels{"i": fmt.Sprint(n - 1)}, Proto: ax.TCP, Dest: svc.Key.Addr}
		if got := route.NewDecider(route.Config{}).Decide(s, one, nil); got.Endpoint == nil || got.Endpoint.ID != svc.Endpoints[n-1].ID {
			t.Errorf("%d endpoints: the last by its label gave %+v", n, got)
		}
	}
}
