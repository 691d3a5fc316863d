package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

func selector(t *testing.T, text string) ax.Selector {
	t.Helper()
	s, err := ax.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func networks(t *testing.T, list string) (out []netip.Prefix) {
	t.Helper()
	for _, text := range strings.Fields(list) {
		c, err := ax.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// TestPolicyMatching: what a policy names must all match, and what it leaves out matches everything.
func TestPolicyMatching(t *testing.T) {
	type match struct {
		from, to, cidrs, except string
		ports                   []ax.PortRange
		proto                   ax.Protocol
	}
	const inside, host, outside, outside6 = "1.1.1.1:80", "10.0.2.1:40001", "203.0.113.10:443", "[2001:db8:7::1]:443"
	for _, c := range []struct {
		match
		dest string
		udp  bool
		want bool
	}{
		{match{}, inside, false, true},
		{match{}, outside, false, true},
		{match{from: "zone=prod"}, inside, false, true},
		{match{from: "zone!=prod"}, inside, false, false},
		{match{from: "zone in (test,prod),tier"}, inside, false, true},
		{match{from: "zone in (test,prod),!tier"}, inside, false, false},
		{match{from: "role"}, inside, false, false},
		{match{to: "tier=db"}, inside, false, true},
		{match{to: "tier notin (web,app)"}, inside, false, true},
		{match{to: "tier!=db"}, inside, false, false},
		{match{to: "tier=db"}, host, false, true},
		{match{ports: []ax.PortRange{{First: 80, Last: 80}}}, host, false, true}, // the service's port
		{match{ports: []ax.PortRange{{First: 40001, Last: 40001}}}, host, false, false},
		{match{to: "tier!=web"}, outside, false, false}, // what is outside has no labels that could be others
		{match{to: "!tier"}, outside, false, false},
		{match{ports: []ax.PortRange{{First: 1, Last: 79}, {First: 80, Last: 90}}}, inside, false, true},
		{match{ports: []ax.PortRange{{First: 81, Last: 90}}}, inside, false, false},
		{match{ports: []ax.PortRange{{First: 443, Last: 443}}}, outside, false, true},
		{match{proto: ax.TCP}, inside, false, true},
		{match{proto: ax.UDP}, inside, false, false},
		{match{proto: ax.UDP}, outside, true, true},
		{match{proto: ax.TCP}, outside, true, false},
		{match{cidrs: "203.0.113.0/24"}, outside, false, true},
		{match{cidrs: "203.0.113.10"}, outside, false, true},
		{match{cidrs: "203.0.113.11 198.51.100.0/24"}, outside, false, false},
		{match{cidrs: "0.0.0.0/0", except: "203.0.113.0/28"}, outside, false, false},
		{match{cidrs: "0.0.0.0/0", except: "203.0.113.0/29"}, outside, false, true},
		{match{cidrs: "0.0.0.0/0"}, outside6, false, false},
		{match{cidrs: "::/0"}, outside6, false, true},
		{match{cidrs: "2001:db8::/32", except: "2001:db8:7::/48"}, outside6, false, false},
		{match{cidrs: "203.0.113.0/24"}, "[::ffff:203.0.113.10]:443", false, true}, // however it is written
		{match{cidrs: "0.0.0.0/0"}, inside, false, false},                          // applications are in no network
		{match{cidrs: "0.0.0.0/0"}, host, false, false},
		{match{cidrs: "10.0.2.0/24"}, "10.0.2.1:22", false, true},           // the node's own port
		{match{to: "tier=db", cidrs: "0.0.0.0/0"}, inside, false, true},     // either
		{match{to: "tier=db", cidrs: "0.0.0.0/0"}, outside, false, true},    // or
		{match{to: "tier=web", cidrs: "10.0.0.0/8"}, inside, false, false},  // or neither
		{match{to: "tier=web", cidrs: "10.0.0.0/8"}, outside, false, false}, //
	} {
		m := c.match
		p := ax.Policy{
			Name: "p", Action: ax.PolicyDeny, From: selector(t, m.from), To: selector(t, m.to), CIDRs: networks(t, m.cidrs), Except: networks(t, m.except),
			Ports: m.ports, Proto: m.proto,
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		f := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort(c.dest)}
		if c.udp {
			f.Proto = ax.UDP
		}
		d := route.NewDecider(route.Config{})
		s := route.Empty().Apply(world())
		if before := d.Decide(s, f, nil); before.Verdict == ax.Deny {
			t.Fatalf("%s is refused without a policy: %+v", c.dest, before)
		}
		denied := d.Decide(s.Apply(route.Delta{Policies: []ax.Policy{p}}), f, nil)
		if got := denied.Verdict == ax.Deny && denied.Reason == ax.ReasonPolicyDeny && denied.Policy == "p" && denied.ErrnoName() == "ECONNREFUSED"; got != c.want {
			t.Errorf("%+v to %s udp %v: %+v, want it refused: %v", m, c.dest, c.udp, denied, c.want)
		}
		p.Audit = true
		audited := d.Decide(s.Apply(route.Delta{Policies: []ax.Policy{p}}), f, nil)
		if audited.Verdict == ax.Deny || (audited.Audit == "p") != c.want {
			t.Errorf("%+v to %s udp %v in audit mode: %+v, want it told: %v", m, c.dest, c.udp, audited, c.want)
		}
	}
}

// TestPolicyOrder: deny, then allow, then labels, whatever the names; audit only tells, of what is carried out.
func TestPolicyOrder(t *testing.T) {
	deny := ax.Policy{Name: "z-deny", Action: ax.PolicyDeny}
	allow := ax.Policy{Name: "a-allow", Action: ax.PolicyAllow}
	audit := ax.Policy{Name: "m-audit", Action: ax.PolicyDeny, Audit: true}
	other := ax.Policy{Name: "b-audit", Action: ax.PolicyDeny, Audit: true}
	elsewhere := ax.Policy{Name: "0-audit", Action: ax.PolicyDeny, Audit: true, Ports: []ax.PortRange{{First: 9, Last: 9}}}
	const inside, outside = "1.1.1.1:80", "203.0.113.10:443"
	for _, c := range []struct {
		labels   ax.Labels
		dest     string
		policies []ax.Policy
		want     string
	}{
		{prod, inside, []ax.Policy{allow, deny, audit}, "deny policy-deny z-deny "},
		{test, inside, []ax.Policy{allow}, "allow policy-allow a-allow "},
		{test, inside, []ax.Policy{allow, audit}, "allow policy-allow a-allow m-audit"},
		{prod, inside, []ax.Policy{audit}, "allow shared-label  m-audit"},
		{prod, inside, []ax.Policy{audit, other, elsewhere}, "allow shared-label  b-audit"},
		{test, inside, []ax.Policy{audit}, "deny no-shared-label  "}, // refused anyway: there is nothing to tell
		{prod, outside, []ax.Policy{audit}, "passthrough external  m-audit"},
		{prod, outside, []ax.Policy{allow, audit}, "passthrough policy-allow a-allow m-audit"},
		{prod, outside, []ax.Policy{allow, deny, audit}, "deny policy-deny z-deny "},
	} {
		s := route.Empty().Apply(world()).Apply(route.Delta{Policies: c.policies})
		d := route.NewDecider(route.Config{}).Decide(s, ax.Flow{Labels: c.labels, Proto: ax.TCP, Dest: netip.MustParseAddrPort(c.dest)}, nil)
		if got := fmt.Sprint(d.Verdict, " ", d.Reason, " ", d.Policy, " ", d.Audit); got != c.want {
			t.Errorf("%v to %s with %d policies: %q, want %q", c.labels, c.dest, len(c.policies), got, c.want)
		}
	}
}

// TestPolicyOutsideBackends: networks decide where a virtual service's backend outside may be reached, as when a client
// connects there by itself.
func TestPolicyOutsideBackends(t *testing.T) {
	svc := service("1.1.1.1:80", ax.Random,
		ax.ExternalEndpoint(ax.TCP, netip.MustParseAddrPort("192.0.2.7:8080")), ax.ExternalEndpoint(ax.TCP, netip.MustParseAddrPort("198.51.100.7:8080")))
	s := route.Empty().Apply(route.Delta{Upserts: []route.Service{svc}, Policies: []ax.Policy{
		{Name: "no-lab", Action: ax.PolicyDeny, CIDRs: networks(t, "192.0.2.0/24")},
		{Name: "tell", Action: ax.PolicyDeny, CIDRs: networks(t, "198.51.100.0/24"), Audit: true},
	}})
	for range 20 {
		d := route.NewDecider(route.Config{}).Decide(s, ax.Flow{Labels: prod, Proto: ax.TCP, Dest: svc.Key.Addr}, nil)
		if d.Verdict != ax.Allow || d.Endpoint.Host.String() != "198.51.100.7:8080" || d.Audit != "tell" {
			t.Fatalf("%+v, want the backend that no policy refuses, told of", d)
		}
	}
}

// plain judges by the rules as they are documented, without index, classes and masks.
func plain(policies []ax.Policy, f ax.Flow, e *ax.Endpoint, dest netip.AddrPort) string {
	slices.SortFunc(policies, func(a, b ax.Policy) int { return strings.Compare(a.Name, b.Name) })
	matches := func(p ax.Policy) bool {
		port := dest.Port()
		to := len(p.To) == 0 && len(p.CIDRs) == 0
		in := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(c netip.Prefix) bool { return c.Contains(a) })
		}
		if e != nil && !e.External {
			port = e.Service.Port()
			to = to || len(p.To) > 0 && p.To.Matches(e.Labels)
		} else {
			to = to || in(p.CIDRs, dest.Addr()) && !in(p.Except, dest.Addr())
		}
		ports := len(p.Ports) == 0
		for _, r := range p.Ports {
			ports = ports || port >= r.First && port <= r.Last
		}
		return to && ports && p.From.Matches(f.Labels) && (p.Proto == 0 || p.Proto == f.Proto)
	}
	first := func(of func(ax.Policy) bool) string {
		for _, p := range policies {
			if of(p) && matches(p) {
				return p.Name
			}
		}
		return ""
	}
	audit := first(func(p ax.Policy) bool { return p.Audit })
	if name := first(func(p ax.Policy) bool { return !p.Audit && p.Action == ax.PolicyDeny }); name != "" {
		return "false policy-deny " + name + " "
	}
	if name := first(func(p ax.Policy) bool { return p.Action == ax.PolicyAllow }); name != "" {
		return "true policy-allow " + name + " " + audit
	}
	switch {
	case e == nil || e.External:
		return "true external  " + audit
	case f.Labels.Shares(e.Labels):
		return "true shared-label  " + audit
	}
	return "false no-shared-label  "
}

// TestPoliciesAgainstTheRules compares what is decided on random clusters with the rules in their plainest form, for every
// server that is looked at and for addresses outside.
func TestPoliciesAgainstTheRules(t *testing.T) {
	compared, audits := 0, 0
	for seed := range uint64(20) {
		p := pairs{rand.New(rand.NewPCG(seed, 3))}
		s := p.cluster()
		policies := s.Full().Policies
		for range 100 {
			f := p.flow()
			d, candidates := route.Explain(s, f)
			for _, c := range candidates {
				if c.Reason == ax.ReasonStale {
					continue
				}
				dest := c.Endpoint.Host
				got := fmt.Sprint(c.Eligible, " ", c.Reason, " ", c.Policy, " ", c.Audit)
				if want := plain(policies, f, c.Endpoint, dest); got != want {
					t.Fatalf("seed %d: %v to %s at %v: %q, want %q", seed, f.Labels, c.Endpoint.ID, f.Dest, got, want)
				}
				compared++
			}
			if d.Verdict == ax.Passthrough || d.Reason == ax.ReasonPolicyDeny && candidates == nil {
				got := fmt.Sprint(d.Verdict == ax.Passthrough, " ", d.Reason, " ", d.Policy, " ", d.Audit)
				if want := plain(policies, f, nil, f.Dest); got != want {
					t.Fatalf("seed %d: %v to %v outside: %q, want %q", seed, f.Labels, f.Dest, got, want)
				}
				compared++
			}
			if d.Audit != "" {
				audits++
			}
		}
	}
	if compared < 2000 || audits < 100 {
		t.Errorf("%d comparisons, %d audits: the clusters are too dull", compared, audits)
	}
}

// TestManyPolicies: more than fit without an allocation, with the one that decides anywhere among them.
func TestManyPolicies(t *testing.T) {
	var d route.Delta
	for i := range 2000 {
		d.Policies = append(d.Policies, policy(fmt.Sprintf("p%04d", i), ax.PolicyDeny, ax.Labels{"team": fmt.Sprint(i)}, nil))
	}
	s := route.Empty().Apply(world()).Apply(d)
	for _, i := range []int{0, 63, 64, 511, 512, 1999} {
		f := ax.Flow{Labels: ax.Labels{"zone": "prod", "team": fmt.Sprint(i)}, Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")}
		if got := route.NewDecider(route.Config{}).Decide(s, f, nil); got.Policy != fmt.Sprintf("p%04d", i) {
			t.Errorf("team %d: %+v", i, got)
		}
	}
	f := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")}
	if got := route.NewDecider(route.Config{}).Decide(s, f, nil); got.Verdict != ax.Allow {
		t.Errorf("no team: %+v", got)
	}
}

// TestPoliciesDoNotAllocate: a connect to which policies apply costs no memory.
func TestPoliciesDoNotAllocate(t *testing.T) {
	var d route.Delta
	for i := range 500 {
		d.Policies = append(d.Policies, policy(fmt.Sprint("p", i), ax.PolicyDeny, ax.Labels{"team": fmt.Sprint(i)}, nil))
	}
	for i := range 8 {
		d.Policies = append(d.Policies, ax.Policy{
			Name: fmt.Sprint("audit", i), Action: ax.PolicyDeny, Audit: true, From: selector(t, "zone in (prod,test),!team"), CIDRs: networks(t, "10.0.0.0/8 203.0.113.0/24"),
		})
	}
	s := route.Empty().Apply(world()).Apply(d)
	decider := route.NewDecider(route.Config{})
	for _, dest := range []string{"1.1.1.1:80", "10.0.2.1:40001", "203.0.113.10:443"} {
		f := ax.Flow{Labels: prod, Proto: ax.TCP, Dest: netip.MustParseAddrPort(dest)}
		if n := testing.AllocsPerRun(100, func() { decider.Decide(s, f, nil) }); n != 0 {
			t.Errorf("%s: %v allocations", dest, n)
		}
	}
}

func TestReplay(t *testing.T) {
	present := route.Empty().Apply(world()).Apply(route.Delta{Policies: []ax.Policy{policy("old", ax.PolicyDeny, test, nil)}})
	draft := func(policies ...ax.Policy) *route.Snapshot { return present.Apply(route.Delta{Policies: policies}) }
	for name, c := range map[string]struct {
		draft   *route.Snapshot
		labels  ax.Labels
		dest    string
		changed bool
		is      string
	}{
		"nothing":          {draft(), prod, "1.1.1.1:80", false, "allow shared-label"},
		"denied":           {draft(policy("new", ax.PolicyDeny, prod, nil)), prod, "1.1.1.1:80", true, "deny policy-deny: new"},
		"another's":        {draft(policy("new", ax.PolicyDeny, prod, nil)), test, "1.1.1.2:5432", false, "deny policy-deny: old"},
		"replaced":         {draft(policy("old", ax.PolicyDeny, prod, nil)), test, "1.1.1.2:5432", true, "allow shared-label"},
		"another reason":   {draft(policy("also", ax.PolicyAllow, prod, nil)), prod, "1.1.1.1:80", false, "allow policy-allow: also"},
		"audited":          {draft(ax.Policy{Name: "tell", Action: ax.PolicyDeny, Audit: true}), prod, "203.0.113.10:443", true, "passthrough external tell"},
		"left out":         {present.Apply(route.Delta{RemovedPolicies: []string{"old"}}), test, "203.0.113.10:443", true, "passthrough external"},
		"nothing is there": {draft(policy("new", ax.PolicyAllow, prod, nil)), prod, "1.1.1.9:80", false, "deny no-endpoint"},
	} {
		f := ax.Flow{Labels: c.labels, Proto: ax.TCP, Dest: netip.MustParseAddrPort(c.dest)}
		_, is, changed := route.Replay(present, c.draft, f)
		if got := strings.TrimSpace(fmt.Sprint(is.Verdict, " ", is.Why(), " ", is.Audit)); changed != c.changed || got != c.is {
			t.Errorf("%s: %v %q, want %v %q", name, changed, got, c.changed, c.is)
		}
	}
}
