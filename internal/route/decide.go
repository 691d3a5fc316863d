package route

import (
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
)

// Load tells how busy endpoints are, as far as this node knows.
type Load interface {
	// Connections returns how many connections this node has to the endpoint at a real address. It is called within
	// connects, once for each candidate, by any number of goroutines: it neither waits nor allocates.
	Connections(proto ax.Protocol, host netip.AddrPort) int
}

// Config is what balancing works with. The zero Config is ready.
type Config struct {
	Load Load             // for LeastConn; nil: no endpoint has connections, so that weights alone decide
	Now  func() time.Time // for session affinity and ejections; nil: time.Now
	// Outliers knows the endpoints that are left out because connects to them have failed; nil: none.
	Outliers *Outliers
}

// Decider decides flows. It holds only the state of balancing, and is safe for concurrent use.
type Decider struct {
	load       Load
	now        func() time.Time
	outliers   *Outliers
	turns      turns
	affinities affinities
}

// NewDecider returns a Decider.
func NewDecider(cfg Config) *Decider {
	d := &Decider{load: cfg.Load, now: cfg.Now, outliers: cfg.Outliers}
	if d.now == nil {
		d.now = time.Now
	}
	return d
}

// Overflows counts how often turns or affinities were forgotten because there were too many; see [MaxTurns] and
// [MaxAffinities].
func (d *Decider) Overflows() uint64 { return d.turns.overflows.Load() + d.affinities.overflows.Load() }

// Decide says what happens to a flow. The rules, of which the first that applies decides:
//
//  1. a reserved port of a node's address is refused;
//  2. a service is reached if policy admits the client to one of its endpoints that is not draining: the balancer's choice
//     among those that are well (their node is alive, their checks don't fail, connects to them don't either), and only
//     if there is none, among the others;
//  3. the real address of an endpoint is judged as its service is;
//  4. any other port of a virtual address is refused;
//  5. the rest is not ours: it is reached unless a policy refuses it.
//
// Endpoints in tried have refused already and are not chosen again. Decide does not allocate for a service of up to
// 512 endpoints and a client to which up to 16 policies apply.
func (d *Decider) Decide(s *Snapshot, f ax.Flow, tried []ax.EndpointID) ax.Decision {
	if s == nil {
		return ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonNoSnapshot}
	}
	g, svc, otherwise := s.find(f)
	switch {
	case g == nil && otherwise.Reason == ax.ReasonExternal:
		return s.outside(&f, otherwise)
	case g == nil:
		return otherwise
	}
	return d.choose(s, f, g, svc, tried)
}

// find returns the endpoints at a destination, with their service unless it is a real address; or, with none, the
// decision.
func (s *Snapshot) find(f ax.Flow) (*group, *service, ax.Decision) {
	dest := plainAddrPort(f.Dest)
	ha := hashAddr(dest.Addr())
	a, known := s.addrs.get(ha, dest.Addr())
	if !known {
		return nil, nil, s.notOurs(dest)
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
	return nil, nil, s.notOurs(dest)
}

// notOurs is the decision about an address that no service has.
func (s *Snapshot) notOurs(dest netip.AddrPort) ax.Decision {
	reason := ax.ReasonExternal
	if dest.Addr().IsLoopback() {
		reason = ax.ReasonLoopback
	}
	return ax.Decision{Verdict: ax.Passthrough, Reason: reason, Revision: s.revision}
}

// choose balances over the endpoints of g that the client may reach.
func (d *Decider) choose(s *Snapshot, f ax.Flow, g *group, svc *service, tried []ax.EndpointID) ax.Decision {
	var policyBuf [inlinePolicies]*policy
	policies := s.policies.matching(&f, policyBuf[:0])
	var bufs [2][inlineWords]uint64
	first, last := makeMask(bufs[0][:], len(g.endpoints)), makeMask(bufs[1][:], len(g.endpoints))

	refusal := ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonNoLabel, Revision: s.revision}
	var j judgement
	for i, e := range g.endpoints {
		if i == 0 || g.classOf[i] != g.classOf[i-1] {
			j = judge(policies, f.Labels, &g.classes[g.classOf[i]])
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
			if refusal.Reason = ax.ReasonNoEndpoint; e.Draining {
				refusal.Reason = ax.ReasonDraining
			}
		}
	}
	if first.empty() && last.empty() {
		if refusal.Reason == ax.ReasonNoEndpoint || refusal.Reason == ax.ReasonDraining {
			refusal.Policy = ""
		}
		return refusal
	}
	if d.outliers.known() {
		if now := d.now(); d.outliers.any(now) {
			d.outliers.setAside(g, first, last, now)
		}
	}
	i := d.balance(s, f, g, svc, first, last, tried)
	if i < 0 {
		return ax.Decision{Verdict: ax.Deny, Reason: ax.ReasonTried, Revision: s.revision}
	}
	if g.classOf[i] != g.classOf[len(g.classOf)-1] { // j is of the last
		j = judge(policies, f.Labels, &g.classes[g.classOf[i]])
	}
	out := ax.Decision{Verdict: ax.Allow, Reason: j.reason, Policy: j.policy, Endpoint: g.endpoints[i], Revision: s.revision}
	out.Audit = audit(policies, &g.classes[g.classOf[i]])
	if svc != nil {
		out.Source = svc.Source
	}
	return out
}
