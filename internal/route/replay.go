package route

import "appswitch.io/internal/ax"

// Replay decides a flow on two snapshots, the present one and one with a draft of policies, and tells whether what happens
// differs: the verdict, or whether a policy in audit mode would refuse it.
func Replay(present, draft *Snapshot, f ax.Flow) (was, is ax.Decision, changed bool) {
	was, is = outcome(present, f), outcome(draft, f)
	return was, is, was.Verdict != is.Verdict || was.Audit != is.Audit
}

// outcome is what [Explain] decides, whatever the balancer: a policy in audit mode counts if it would refuse any of the
// endpoints that may be chosen.
func outcome(s *Snapshot, f ax.Flow) ax.Decision {
	d, candidates := Explain(s, f)
	for _, c := range candidates {
		if d.Audit == "" && c.Eligible {
			d.Audit = c.Audit
		}
	}
	return d
}
