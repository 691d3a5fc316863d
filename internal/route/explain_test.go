package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

// pairs draws clients and destinations of a made-up cluster: labels that are shared or not, policies of both kinds,
// stale endpoints, suspected and unknown nodes, virtual services, node addresses, reserved ports, claims, the outside.
type pairs struct{ *rand.Rand }

func (p pairs) labels() ax.Labels {
	l := ax.Labels{}
	for _, key := range []string{"zone", "tier", "role"} {
		if p.IntN(3) > 0 {
			l[key] = fmt.Sprint("v", p.IntN(3))
		}
	}
	return l
}

func (p pairs) cluster() *route.Snapshot {
	d := route.Delta{Revision: 42, Full: true}
	for n := range 4 {
		d.Nodes = append(d.Nodes, ax.Node{
			Name: ax.NodeName(fmt.Sprint("n", n)), Addr: netip.AddrFrom4([4]byte{10, 0, 2, byte(n)}), ReservedPorts: []uint16{6665},
		})
		d.Claims = append(d.Claims, netip.AddrFrom4([4]byte{1, 1, 2, byte(n)}))
	}
	for a := range 24 {
		for _, port := range []uint16{80, 81} {
			s := route.Service{
				Key:      route.ServiceKey{Proto: ax.TCP, Addr: netip.AddrPortFrom(p.virtual(a), port)},
				Balancer: []ax.BalancerType{ax.Random, ax.RoundRobin}[p.IntN(2)],
			}
			for e := range 1 + p.IntN(6) {
				node := p.IntN(5) // the last one is no node
				s.Endpoints = append(s.Endpoints, &ax.Endpoint{
					ID: ax.EndpointID(fmt.Sprintf("%d/%d/%d", a, port, e)), App: "0000000a", Node: ax.NodeName(fmt.Sprint("n", node)), Proto: ax.TCP,
					Service: netip.AddrPortFrom(p.virtual(a), uint16(80+p.IntN(3))),
					Host:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(node)}), uint16(40000+100*a+10*e)+port-80),
					Labels:  p.labels(), Stale: p.IntN(4) == 0,
				})
			}
			if p.IntN(4) == 0 { // behind the others by id
				s.Endpoints = append(s.Endpoints, ax.ExternalEndpoint(ax.TCP, netip.AddrPortFrom(p.outside(), port)))
			}
			d.Upserts = append(d.Upserts, s)
		}
	}
	for i := range 12 {
		d.Policies = append(d.Policies, p.policy(fmt.Sprint("p", i)))
	}
	return route.Empty().Apply(d).Suspect("n1")
}

// policy makes one of every kind: that allows, denies or audits, by labels, networks, ports and protocol.
func (p pairs) policy(name string) ax.Policy {
	policy := ax.Policy{Name: name, Action: []ax.PolicyAction{ax.PolicyAllow, ax.PolicyDeny}[p.IntN(2)], From: p.selector()}
	policy.Audit = policy.Action == ax.PolicyDeny && p.IntN(2) == 0
	if p.IntN(4) > 0 {
		policy.To = p.selector()
	}
	if p.IntN(3) == 0 {
		policy.CIDRs = []netip.Prefix{netip.MustParsePrefix("8.8.0.0/16"), netip.MustParsePrefix("10.0.2.0/31")}
		policy.Except = []netip.Prefix{netip.PrefixFrom(p.outside(), 30).Masked()}
	}
	if p.IntN(2) == 0 {
		policy.Ports = []ax.PortRange{{First: uint16(80 + p.IntN(2)), Last: 81}, {First: 53, Last: 53}}
	}
	if p.IntN(4) == 0 {
		policy.Proto = ax.Protocol(1 + p.IntN(2))
	}
	return policy.Canonical()
}

// selector has a condition or two, of every kind, so that policies match often.
func (p pairs) selector() (s ax.Selector) {
	for range 1 + p.IntN(2) {
		c := ax.Condition{Key: []string{"zone", "tier", "role"}[p.IntN(3)], Op: []ax.SelectorOp{ax.SelectIn, ax.SelectIn, ax.SelectNotIn, ax.SelectExists, ax.SelectAbsent}[p.IntN(5)]}
		if c.Op == ax.SelectIn || c.Op == ax.SelectNotIn {
			c.Values = []string{"v0", "v1", "v2"}[p.IntN(2):][:1+p.IntN(2)]
		}
		s = append(s, c)
	}
	return s
}

func (p pairs) outside() netip.Addr { return netip.AddrFrom4([4]byte{8, 8, 8, byte(p.IntN(9))}) }

func (p pairs) virtual(n int) netip.Addr { return netip.AddrFrom4([4]byte{1, 1, 1, byte(n)}) }

func (p pairs) flow() ax.Flow {
	f := ax.Flow{Labels: p.labels(), Proto: ax.TCP}
	switch p.IntN(12) {
	case 0:
		f.Dest = netip.AddrPortFrom(p.outside(), []uint16{53, 443}[p.IntN(2)])
	case 1:
		f.Dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, 1, 2, byte(p.IntN(5))}), 80)
	case 2:
		f.Dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(p.IntN(5))}), []uint16{22, 6665}[p.IntN(2)])
	case 3: // the real address of an endpoint, or nearly
		f.Dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(p.IntN(5))}), uint16(40000+100*p.IntN(24)+10*p.IntN(6)+p.IntN(2)))
	default:
		f.Dest = netip.AddrPortFrom(p.virtual(p.IntN(24)), uint16(80+p.IntN(9)/4))
	}
	if p.IntN(20) == 0 {
		f.Proto = ax.UDP
	}
	return f
}

// TestExplainAgreesWithDecide compares, for 1000 pairs of client and destination, what is explained with what is done:
// the decision, its reason and errno; and the endpoints that may be chosen with those that connects go to, one after
// the other, as each refuses.
func TestExplainAgreesWithDecide(t *testing.T) {
	const want = 1000
	outcomes := map[ax.Reason]int{}
	for seed, n := uint64(1), 0; n < want; seed++ {
		p := pairs{rand.New(rand.NewPCG(seed, 2))}
		s := p.cluster()
		decider := route.NewDecider(route.Config{})
		for range 100 {
			n++
			f := p.flow()
			explained, candidates := route.Explain(s, f)
			outcomes[explained.Reason]++
			if err := agree(decider, s, f, explained, candidates); err != nil {
				t.Errorf("seed %d: %v to %v %s: %v", seed, f.Labels, f.Dest, f.Proto, err)
			}
		}
	}
	for _, r := range []ax.Reason{
		ax.ReasonLabels, ax.ReasonPolicyAllow, ax.ReasonPolicyDeny, ax.ReasonNoLabel, ax.ReasonNoEndpoint, ax.ReasonReservedPort, ax.ReasonExternal,
	} {
		if outcomes[r] < want/100 {
			t.Errorf("the pairs hardly meet %q: %v", r, outcomes)
		}
	}
}

func agree(decider *route.Decider, s *route.Snapshot, f ax.Flow, explained ax.Decision, candidates []route.Candidate) error {
	done := decider.Decide(s, f, nil)
	if done.Verdict != explained.Verdict || done.Revision != explained.Revision || done.ErrnoName() != explained.ErrnoName() {
		return fmt.Errorf("explained %+v, done %+v", explained, done)
	}
	if done.Verdict != ax.Allow {
		if done.Reason != explained.Reason || done.Policy != explained.Policy || done.Audit != explained.Audit {
			return fmt.Errorf("explained %s %s, done for %s %s", explained.Reason, explained.Policy, done.Reason, done.Policy)
		}
		for _, c := range candidates {
			if c.Eligible {
				return fmt.Errorf("refused, but %s may be chosen", c.Endpoint.ID)
			}
		}
		return nil
	}
	eligible := map[ax.EndpointID]route.Candidate{}
	for _, c := range candidates {
		if c.Eligible {
			eligible[c.Endpoint.ID] = c
		}
	}
	if explained.Endpoint == nil || eligible[explained.Endpoint.ID].Endpoint == nil {
		return fmt.Errorf("explained %+v, which may not be chosen", explained)
	}
	// As many connects as there are eligible endpoints, each of which refuses, go to all of them.
	var tried []ax.EndpointID
	for range len(eligible) {
		d := decider.Decide(s, f, tried)
		if d.Verdict != ax.Allow {
			return fmt.Errorf("after %v: %+v, but %d may be chosen", tried, d, len(eligible))
		}
		c, ok := eligible[d.Endpoint.ID]
		if !ok || c.Reason != d.Reason || c.Policy != d.Policy || c.Audit != d.Audit {
			return fmt.Errorf("after %v: %s for %s %s; explained %+v", tried, d.Endpoint.ID, d.Reason, d.Policy, c)
		}
		tried = append(tried, d.Endpoint.ID)
	}
	return nil
}
