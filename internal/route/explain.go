package route

import (
	"time"

	"appswitch.io/internal/ax"
)

// Candidate is an endpoint that was looked at.
type Candidate struct {
	Endpoint *ax.Endpoint
	Eligible bool      // the balancer may choose it
	Reason   ax.Reason // why, or why not
	Policy   string    // name of the policy that decided, if one did
	Audit    string    // name of the policy in audit mode that would refuse it, if it may be chosen and one would
}

// Explain decides a flow as [Decider.Decide] does and shows every endpoint that was looked at. Of several eligible
// ones the decision names the first, whatever the balancer.
func Explain(s *Snapshot, f ax.Flow) (ax.Decision, []Candidate) { return ExplainOn(s, f, nil) }

// ExplainOn is Explain for a node that knows of failed connects; nil: of none.
func ExplainOn(s *Snapshot, f ax.Flow, outliers *Outliers) (ax.Decision, []Candidate) {
	decision := NewDecider(Config{Outliers: outliers}).Decide(s, f, nil)
	if s == nil {
		return decision, nil
	}
	g, _, _ := s.find(f)
	if g == nil {
		return decision, nil
	}
	policies := s.policies.matching(&f, nil)
	out := make([]Candidate, len(g.endpoints))
	first, last := makeMask(nil, len(g.endpoints)), makeMask(nil, len(g.endpoints))
	for i, e := range g.endpoints {
		j := judge(policies, f.Labels, &g.classes[g.classOf[i]])
		out[i] = Candidate{Endpoint: e, Eligible: j.ok, Reason: j.reason, Policy: j.policy}
		if j.ok {
			out[i].Audit = audit(policies, &g.classes[g.classOf[i]])
		}
		switch {
		case !j.ok:
		case s.standing(e) == preferred:
			first.set(i)
		case s.standing(e) == lastResort:
			last.set(i)
		}
	}
	if now := time.Now(); outliers.any(now) {
		outliers.setAside(g, first, last, now)
	}
	best := first
	if best.empty() {
		best = last
	}
	chosen := false
	for i := range out {
		c := &out[i]
		if c.Eligible && !best.has(i) {
			c.Eligible, c.Reason, c.Policy, c.Audit = false, s.setback(c.Endpoint), "", ""
		}
		if c.Eligible && !chosen && decision.Verdict == ax.Allow {
			chosen = true
			decision.Endpoint, decision.Reason, decision.Policy, decision.Audit = c.Endpoint, c.Reason, c.Policy, c.Audit
		}
	}
	return decision, out
}

// setback says why an endpoint that policy admits is not among the first: if nothing that the snapshot knows, it is what
// the node knows.
func (s *Snapshot) setback(e *ax.Endpoint) ax.Reason {
	_, suspect := s.suspects[e.Node]
	switch {
	case e.External:
		if s.standing(e) == gone {
			return ax.ReasonNoEndpoint
		}
	case e.Draining:
		return ax.ReasonDraining
	case suspect || e.Stale:
		return ax.ReasonStale
	case e.Health.State == ax.Unhealthy:
		return ax.ReasonUnhealthy
	}
	return ax.ReasonEjected
}
