package route

import (
	"math/rand/v2"
	"slices"

	"appswitch.io/internal/ax"
)

// Decider decides flows. It holds only the state of balancing, and is safe for concurrent use.
type Decider struct{ turns turns }

// NewDecider returns a Decider.
func NewDecider() *Decider { return &Decider{} }

// Overflows counts how often turns were forgotten because there were too many services; see [MaxTurns].
func (d *Decider) Overflows() uint64 { return d.turns.overflows.Load() }

// Decide says what happens to a flow. The rules, of which the first that applies decides:
//
//  1. a reserved port of a node's address is refused;
//  2. a service is reached if policy admits the client to one of its endpoints: the balancer's choice among those
//     whose node is alive, and only if there is none, among the others;
//  3. the real address of an endpoint is judged as its service is;
//  4. any other port of a virtual address is refused;
//  5. the rest is not ours.
//
// Endpoints in tried have refused already and are not chosen again. Decide does not allocate for a service of up to
// 512 endpoints and a client to which up to 16 policies apply.
func (d *Decider) Decide(s *Snapshot, f ax.Flow, tried []ax.EndpointID) ax.Decision {
	if s == nil {
		return ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonNoSnapshot}
	}
	g, svc, otherwise := s.find(f)
	if g == nil {
		return otherwise
	}
	return d.choose(s, f.Labels, g, svc, tried)
}

// find returns the endpoints at a destination, with their service unless it is a real address; or, with none, the
// decision.
func (s *Snapshot) find(f ax.Flow) (*group, *service, ax.Decision) {
	dest := plainAddrPort(f.Dest)
	ha := hashAddr(dest.Addr())
	a, known := s.addrs.get(ha, dest.Addr())
	if !known {
		return nil, nil, ax.Decision{Verdict: ax.Passthrough, Reason: ax.ReasonExternal, Revision: s.revision}
	}
	if a.reserved(dest.Port()) {
		return nil, nil, ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonReservedPort, Revision: s.revision}
	}
	h := withPort(ha, f.Proto, dest.Port())
	if a.services > 0 {
		if svc, ok := s.services.get(h, ServiceKey{f.Proto, dest}); ok {
			return &svc.group, svc, ax.Decision{}
		}
	}
	if a.hosts > 0 {
		if host, ok := s.hosts.get(h, hostKey{f.Proto, dest}); ok {
			return &host.group, nil, ax.Decision{}
		}
	}
	if a.virtual() {
		return nil, nil, ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonNoEndpoint, Revision: s.revision}
	}
	return nil, nil, ax.Decision{Verdict: ax.Passthrough, Reason: ax.ReasonExternal, Revision: s.revision}
}

// choose balances over the endpoints of g that the client may reach.
func (d *Decider) choose(s *Snapshot, client ax.Labels, g *group, svc *service, tried []ax.EndpointID) ax.Decision {
	var policyBuf [inlinePolicies]*policy
	policies := matching(s.policies, client, policyBuf[:0])
	var bufs [2][inlineWords]uint64
	first, last := makeMask(bufs[0][:], len(g.endpoints)), makeMask(bufs[1][:], len(g.endpoints))

	refusal := ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonNoLabel, Revision: s.revision}
	var j judgement
	for i, e := range g.endpoints {
		if i == 0 || g.classOf[i] != g.classOf[i-1] {
			j = judge(policies, client, &g.classes[g.classOf[i]])
		}
		if !j.ok {
			if j.reason == ax.ReasonPolicyDeny && refusal.Policy == "" {
				refusal.Reason, refusal.Policy = j.reason, j.policy
			}
			continue
		}
		switch s.standing(e) {
		case preferred:
			first.set(i)
		case lastResort:
			last.set(i)
		case gone:
			refusal.Reason = ax.ReasonNoEndpoint
		}
	}
	if first.empty() && last.empty() {
		if refusal.Reason == ax.ReasonNoEndpoint {
			refusal.Policy = ""
		}
		return refusal
	}
	i := d.pick(first, g, svc, tried)
	if i < 0 {
		i = d.pick(last, g, svc, tried)
	}
	if i < 0 {
		return ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonTried, Revision: s.revision}
	}
	if g.classOf[i] != g.classOf[len(g.classOf)-1] { // j is of the last
		j = judge(policies, client, &g.classes[g.classOf[i]])
	}
	return ax.Decision{Verdict: ax.Allow, Reason: j.reason, Policy: j.policy, Endpoint: g.endpoints[i], Revision: s.revision}
}

// pick returns the balancer's choice among the candidates that have not been tried, or -1. In turn, a retry takes the
// turn of the next connect, so that those left share evenly what a dead endpoint refuses.
func (d *Decider) pick(candidates mask, g *group, svc *service, tried []ax.EndpointID) int {
	n := candidates.count()
	inTurn := svc != nil && svc.Balancer == ax.RoundRobin && n > 1
	if !inTurn && len(tried) > 0 {
		for i, e := range g.endpoints {
			if slices.Contains(tried, e.ID) {
				candidates.clear(i)
			}
		}
		n = candidates.count()
	}
	switch {
	case n == 0:
		return -1
	case n == 1:
		return candidates.nth(0)
	case !inTurn:
		return candidates.nth(int(rand.Uint64N(uint64(n))))
	}
	start := int(d.turns.next(svc.Key) % uint64(n))
	for k := range n {
		i := candidates.nth((start + k) % n)
		if !slices.Contains(tried, g.endpoints[i].ID) {
			return i
		}
	}
	return -1
}
