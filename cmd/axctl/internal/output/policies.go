package output

import (
	"strings"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

// Policies are the columns of `get policies`.
func Policies() Columns[*typev1.Policy] {
	type policy = typev1.Policy
	return Columns[*policy]{
		{Name: "NAME", Value: (*policy).GetName},
		{Name: "ACTION", Value: func(p *policy) string {
			return strings.ToLower(strings.TrimPrefix(p.GetAction().String(), "POLICY_ACTION_"))
		}},
		{Name: "MODE", Value: policyMode, Tone: func(p *policy) Tone {
			if p.GetAudit() {
				return Doubtful
			}
			return Plain
		}},
		{Name: "FROM", Value: known(func(p ax.Policy) string { return p.From.String() })},
		{Name: "TO", Value: known(func(p ax.Policy) string { return p.To.String() })},
		{Name: "CIDRS", Value: func(p *policy) string { return strings.Join(p.GetToCidrs(), ",") }},
		{Name: "PORTS", Value: known(func(p ax.Policy) string {
			ports := make([]string, len(p.Ports))
			for i, r := range p.Ports {
				ports[i] = r.String()
			}
			return strings.Join(ports, ",")
		})},
		{Name: "PROTO", Value: func(p *policy) string {
			if p.GetProtocol() == typev1.Protocol_PROTOCOL_UNSPECIFIED {
				return ""
			}
			return Proto(p.GetProtocol())
		}},
		{Name: "EXCEPT", Wide: true, Value: func(p *policy) string { return strings.Join(p.GetExceptCidrs(), ",") }},
	}
}

func policyMode(p *typev1.Policy) string {
	if p.GetAudit() {
		return "audit"
	}
	return "enforce"
}

// known writes a policy that this client can read; of a newer daemon's it writes "?".
func known(write func(ax.Policy) string) func(*typev1.Policy) string {
	return func(p *typev1.Policy) string {
		policy, err := axpb.PolicyFrom(p)
		if err != nil {
			return "?"
		}
		return write(policy)
	}
}
