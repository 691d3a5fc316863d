package route

import (
	"cmp"
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// policy is a policy made ready for matching; immutable.
type policy struct {
	ax.Policy
	everywhere bool // it names no destination
}

// policySet is the policies of a snapshot in the order in which they decide: those that deny, those that allow, those that
// only tell; and an index, so that a connect looks at those that its client's labels lead to, however many there are.
type policySet struct {
	list    []*policy
	byLabel map[label][]*policy // those that ask for one of these labels
	rest    []*policy           // the others
}

func newPolicySet(list []*policy) *policySet {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, comparePolicies)
	s := &policySet{list: list, byLabel: map[label][]*policy{}}
	for _, p := range list {
		key, values := indexed(p.From)
		if key == "" {
			s.rest = append(s.rest, p)
		}
		for _, v := range values {
			s.byLabel[label{key, v}] = append(s.byLabel[label{key, v}], p)
		}
	}
	return s
}

// indexed returns the labels of which a client must carry one to fulfil a selector: those of the condition that has the
// fewest. The key is empty if no label is asked for.
func indexed(s ax.Selector) (key string, values []string) {
	for _, c := range s {
		if c.Op == ax.SelectIn && (key == "" || len(c.Values) < len(values)) {
			key, values = c.Key, c.Values
		}
	}
	return key, values
}

func (s *policySet) all() []*policy {
	if s == nil {
		return nil
	}
	return s.list
}

// rank puts deny before allow, so that the first match decides, and what only tells behind them.
func (p *policy) rank() int {
	switch {
	case p.Audit:
		return 2
	case p.Action == ax.PolicyAllow:
		return 1
	}
	return 0
}

func comparePolicies(a, b *policy) int {
	return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Name, b.Name))
}

// inlinePolicies is how many policies may match a client before judging allocates.
const inlinePolicies = 16

// matching appends the policies that apply to a client, in the order in which they decide, to buf, which is empty.
func (s *policySet) matching(f *ax.Flow, buf []*policy) []*policy {
	if s == nil {
		return nil
	}
	buf = appendMatching(buf, s.rest, f)
	sorted := true
	for key, value := range f.Labels { // no policy is found twice: a client has one value of the key by which it is indexed
		before := len(buf)
		buf = appendMatching(buf, s.byLabel[label{key, value}], f)
		sorted = sorted && (before == 0 || before == len(buf))
	}
	if !sorted {
		slices.SortFunc(buf, comparePolicies)
	}
	return buf
}

func appendMatching(buf, from []*policy, f *ax.Flow) []*policy {
	for _, p := range from {
		if (p.Proto == 0 || p.Proto == f.Proto) && p.From.Matches(f.Labels) {
			buf = append(buf, p)
		}
	}
	return buf
}

// leadsTo reports whether the policy applies to a class of endpoints, or to an address outside.
func (p *policy) leadsTo(c *class) bool {
	switch {
	case p.everywhere:
	case c.external:
		if !covers(p.CIDRs, c.addr) || covers(p.Except, c.addr) {
			return false
		}
	case len(p.To) == 0 || !p.To.Matches(c.set):
		return false
	}
	return len(p.Ports) == 0 || slices.ContainsFunc(p.Ports, func(r ax.PortRange) bool { return r.First <= c.port && c.port <= r.Last })
}

func covers(networks []netip.Prefix, a netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// judgement is what policy says of one client and one class of endpoints.
type judgement struct {
	ok     bool
	reason ax.Reason
	policy string
}

// judge is the whole of access control: deny policies win, then allow policies, else client and server must share a
// label. An address outside AppSwitch, which has none, is open to all that no policy refuses. It sees the endpoint's own
// service port, never the port by which the client came, so that no virtual service and no host port leads around a
// policy. Policies are those that match the client.
func judge(policies []*policy, client ax.Labels, c *class) judgement {
	for _, p := range policies {
		switch {
		case p.Audit || !p.leadsTo(c):
			continue
		case p.Action == ax.PolicyDeny:
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

// audit names the first policy in audit mode that would refuse what judge admits; empty if none would.
func audit(policies []*policy, c *class) string {
	for i, p := range slices.Backward(policies) {
		if !p.Audit { // those that audit are last
			policies = policies[i+1:]
			break
		}
	}
	for _, p := range policies {
		if p.leadsTo(c) {
			return p.Name
		}
	}
	return ""
}

// outside decides a flow to an address that is not ours.
func (s *Snapshot) outside(f *ax.Flow, d ax.Decision) ax.Decision {
	if s.policies == nil {
		return d
	}
	var buf [inlinePolicies]*policy
	policies := s.policies.matching(f, buf[:0])
	c := class{port: f.Dest.Port(), external: true, addr: plain(f.Dest.Addr())}
	j := judge(policies, f.Labels, &c)
	if d.Reason, d.Policy = j.reason, j.policy; !j.ok {
		d.Verdict = ax.Deny
		return d
	}
	d.Audit = audit(policies, &c)
	return d
}
