package route

import "appswitch.io/internal/ax"

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
func Explain(s *Snapshot, f ax.Flow) (ax.Decision, []Candidate) {
	decision := NewDecider(Config{}).Decide(s, f, nil)
	if s == nil {
		return decision, nil
	}
	g, _, _ := s.find(f)
	if g == nil {
		return decision, nil
	}
	policies := s.policies.matching(&f, nil)
	out := make([]Candidate, len(g.endpoints))
	best := gone
	for i, e := range g.endpoints {
		j := judge(policies, f.Labels, &g.classes[g.classOf[i]])
		out[i] = Candidate{Endpoint: e, Eligible: j.ok, Reason: j.reason, Policy: j.policy}
		if j.ok {
			out[i].Audit = audit(policies, &g.classes[g.classOf[i]])
			best = max(best, s.standing(e))
		}
	}
	chosen := false
	for i := range out {
		c := &out[i]
		if c.Eligible && (best == gone || s.standing(c.Endpoint) < best) {
			c.Eligible, c.Reason, c.Policy, c.Audit = false, ax.ReasonStale, "", ""
		}
		if c.Eligible && !chosen && decision.Verdict == ax.Allow {
			chosen = true
			decision.Endpoint, decision.Reason, decision.Policy, decision.Audit = c.Endpoint, c.Reason, c.Policy, c.Audit
		}
	}
	return decision, out
}
