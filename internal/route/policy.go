package route

import (
	"cmp"
	"slices"

	"appswitch.io/internal/ax"
)

// policy is a policy made ready for matching.
type policy struct {
	ax.Policy
	from, to []label
}

func newPolicy(p ax.Policy) *policy {
	return &policy{Policy: p, from: labelsOf(p.From), to: labelsOf(p.To)}
}

// comparePolicies puts deny before allow, so that the first match decides.
func comparePolicies(a, b *policy) int {
	return cmp.Or(cmp.Compare(b.Action, a.Action), cmp.Compare(a.Name, b.Name))
}

// judgement is what policy says of one client and one class of endpoints.
type judgement struct {
	ok     bool
	reason ax.Reason
	policy string
}

// inlinePolicies is how many policies may match a client before judging allocates.
const inlinePolicies = 16

// matching appends the policies that apply to a client, in the order in which they decide.
func matching(policies []*policy, client ax.Labels, buf []*policy) []*policy {
	for _, p := range policies {
		if contained(p.from, client) {
			buf = append(buf, p)
		}
	}
	return buf
}

// judge is the whole of access control: deny policies win, then allow policies, else client and server must share a
// label. An address outside AppSwitch, which has none, is open to all that no policy refuses. It sees the endpoint's own service port, never the port by which the client came, so that no virtual
// service and no host port leads around a policy.
func judge(policies []*policy, client ax.Labels, c *class) judgement {
	for _, p := range policies {
		if !contained(p.to, c.set) || (len(p.Ports) > 0 && !slices.Contains(p.Ports, c.port)) {
			continue
		}
		if p.Action == ax.PolicyDeny {
			return judgement{false, ax.ReasonPolicyDeny, p.Name}
		}
		return judgement{true, ax.ReasonPolicyAllow, p.Name}
	}
	if c.external {
		return judgement{true, ax.ReasonExternal, ""}
	}
	if shared(c.labels, client) {
		return judgement{true, ax.ReasonLabels, ""}
	}
	return judgement{false, ax.ReasonNoLabel, ""}
}
