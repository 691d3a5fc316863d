package axpb

import (
	"errors"
	"fmt"
	"net/netip"

	"appswitch.io/internal/ax"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

// Policies: records that people write.

// PolicyFrom reads a policy, and returns it in its canonical form.
func PolicyFrom(p *typev1.Policy) (ax.Policy, error) {
	if p.GetName() == "" {
		return ax.Policy{}, errors.New("policy.name: missing")
	}
	out, err := policyFrom(p)
	if err == nil {
		out = out.Canonical()
		err = out.Validate()
	}
	if err != nil {
		return ax.Policy{}, fmt.Errorf("policy.%w", err)
	}
	return out, nil
}

func policyFrom(p *typev1.Policy) (ax.Policy, error) {
	out := ax.Policy{Name: p.GetName(), Audit: p.GetAudit()}
	switch p.GetAction() {
	case typev1.PolicyAction_POLICY_ACTION_ALLOW:
		out.Action = ax.PolicyAllow
	case typev1.PolicyAction_POLICY_ACTION_DENY:
		out.Action = ax.PolicyDeny
	default:
		return out, fmt.Errorf("action: %s is not one", p.GetAction())
	}
	var err error
	if out.From, err = selectorFrom("from", p.GetFrom(), p.GetFromSelector()); err != nil {
		return out, err
	}
	if out.To, err = selectorFrom("to", p.GetTo(), p.GetToSelector()); err != nil {
		return out, err
	}
	if out.CIDRs, err = cidrsFrom("to_cidrs", p.GetToCidrs()); err != nil {
		return out, err
	}
	if out.Except, err = cidrsFrom("except_cidrs", p.GetExceptCidrs()); err != nil {
		return out, err
	}
	if p.GetProtocol() != typev1.Protocol_PROTOCOL_UNSPECIFIED {
		if out.Proto, err = ProtocolFrom(p.GetProtocol()); err != nil {
			return out, err
		}
	}
	out.Ports, err = policyPortsFrom(p)
	return out, err
}

func selectorFrom(name string, exact ax.Labels, text string) (ax.Selector, error) {
	if err := exact.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	rest, err := ax.ParseSelector(text)
	if err != nil {
		return nil, fmt.Errorf("%s_selector: %w", name, err)
	}
	return append(exact.Selector(), rest...), nil
}

func cidrsFrom(name string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		c, err := ax.ParseCIDR(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func policyPortsFrom(p *typev1.Policy) ([]ax.PortRange, error) {
	var out []ax.PortRange
	for _, n := range p.GetPorts() {
		port, err := PortFrom("ports", n)
		if err != nil {
			return nil, err
		}
		if port == 0 {
			return nil, errors.New("ports: 0 is not a port")
		}
		out = append(out, ax.PortRange{First: port, Last: port})
	}
	for _, r := range p.GetPortRanges() {
		first, err1 := PortFrom("port_ranges.first", r.GetFirst())
		last, err2 := PortFrom("port_ranges.last", r.GetLast())
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		out = append(out, ax.PortRange{First: first, Last: last})
	}
	return out, nil
}

// Policy writes a policy.
func Policy(in ax.Policy) *typev1.Policy {
	in = in.Canonical()
	p := &typev1.Policy{Name: in.Name, Action: typev1.PolicyAction_POLICY_ACTION_ALLOW, Audit: in.Audit}
	if in.Action == ax.PolicyDeny {
		p.Action = typev1.PolicyAction_POLICY_ACTION_DENY
	}
	if in.Proto != 0 {
		p.Protocol = Protocol(in.Proto)
	}
	p.From, p.FromSelector = selector(in.From)
	p.To, p.ToSelector = selector(in.To)
	for _, c := range in.CIDRs {
		p.ToCidrs = append(p.ToCidrs, c.String())
	}
	for _, c := range in.Except {
		p.ExceptCidrs = append(p.ExceptCidrs, c.String())
	}
	for _, r := range in.Ports {
		if r.First == r.Last {
			p.Ports = append(p.Ports, uint32(r.First))
			continue
		}
		p.PortRanges = append(p.PortRanges, &typev1.PortRange{First: uint32(r.First), Last: uint32(r.Last)})
	}
	return p
}

func selector(s ax.Selector) (exact map[string]string, text string) {
	exact, rest := s.Split()
	return exact, rest.String()
}
