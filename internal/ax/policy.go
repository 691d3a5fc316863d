package ax

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of a policy.
const (
	MaxPolicyPorts = 256 // ports and ranges of them
	MaxPolicyCIDRs = 256 // networks, and as many exceptions
)

// PolicyAction is what a policy does with the connections that it matches.
type PolicyAction uint8

// The actions. Deny wins over Allow.
const (
	PolicyAllow PolicyAction = 1
	PolicyDeny  PolicyAction = 2
)

// String returns "allow" or "deny".
func (a PolicyAction) String() string {
	switch a {
	case PolicyAllow:
		return "allow"
	case PolicyDeny:
		return "deny"
	}
	return "action(" + strconv.Itoa(int(a)) + ")"
}

// ParsePolicyAction reads "allow" or "deny".
func ParsePolicyAction(s string) (PolicyAction, error) {
	switch strings.ToLower(s) {
	case "allow":
		return PolicyAllow, nil
	case "deny":
		return PolicyDeny, nil
	}
	return 0, fmt.Errorf("%q: want allow or deny", s)
}

// PortRange is the ports from First to Last.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads a port, or two with '-' in between.
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(strings.TrimSpace(s), "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a == 0 {
		return PortRange{}, fmt.Errorf("%q: want a port from 1 to 65535, or a range such as 8000-8100", s)
	}
	if b < a {
		return PortRange{}, fmt.Errorf("%q: the range ends before it begins", s)
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

// String returns the range as ParsePortRange reads it.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ParseCIDR reads a network such as 10.0.0.0/8 or 2001:db8::/32, or an address, which stands for itself.
func ParseCIDR(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q: want a network such as 10.0.0.0/8 or 2001:db8::/32", s)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q: the address has bits beyond the network's: want %s, or the address alone", s, p.Masked())
	}
	return p, nil
}

// Policy admits or refuses connections by who connects where. What it leaves out matches everything.
type Policy struct {
	Name   string
	Action PolicyAction
	From   Selector       // of the client
	To     Selector       // of the server; an address outside AppSwitch matches none but the empty one
	CIDRs  []netip.Prefix // networks outside, beside To
	Except []netip.Prefix // taken out of CIDRs
	Ports  []PortRange    // of the service, or of the address outside
	Proto  Protocol       // 0: each
	Audit  bool           // it refuses nothing, and only tells what it would refuse
}

// Everywhere reports whether the policy names no destination, and so applies to each, outside as well.
func (p *Policy) Everywhere() bool { return len(p.To) == 0 && len(p.CIDRs) == 0 }

// Canonical returns the policy in the one form in which it is compared and stored: lists sorted, nothing twice.
func (p Policy) Canonical() Policy {
	p.From, p.To = p.From.canonical(), p.To.canonical()
	p.CIDRs, p.Except = sortedCIDRs(p.CIDRs), sortedCIDRs(p.Except)
	p.Ports = slices.Clone(p.Ports)
	slices.SortFunc(p.Ports, func(a, b PortRange) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
	if p.Ports = slices.Compact(p.Ports); len(p.Ports) == 0 {
		p.Ports = nil
	}
	return p
}

func sortedCIDRs(in []netip.Prefix) []netip.Prefix {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(out)
}

// Validate reports what makes a policy unusable, by the name of the field.
func (p Policy) Validate() error {
	if p.Action != PolicyAllow && p.Action != PolicyDeny {
		return fmt.Errorf("action: %s is not one", p.Action)
	}
	if err := p.From.Validate(); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if err := p.To.Validate(); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if len(p.Ports) > MaxPolicyPorts {
		return fmt.Errorf("ports: %d: at most %d", len(p.Ports), MaxPolicyPorts)
	}
	for _, r := range p.Ports {
		if r.First == 0 || r.Last < r.First {
			return fmt.Errorf("ports: %s is not a port or a range of them", r)
		}
	}
	if p.Proto != 0 && p.Proto != TCP && p.Proto != UDP {
		return fmt.Errorf("protocol: %s is unknown", p.Proto)
	}
	if p.Audit && p.Action != PolicyDeny {
		return errors.New("audit: only a policy that denies can be audited: try one that allows with `ax policy replay`")
	}
	return p.validateCIDRs()
}

func (p *Policy) validateCIDRs() error {
	if len(p.CIDRs) > MaxPolicyCIDRs {
		return fmt.Errorf("to_cidrs: %d: at most %d", len(p.CIDRs), MaxPolicyCIDRs)
	}
	if len(p.Except) > MaxPolicyCIDRs {
		return fmt.Errorf("except_cidrs: %d: at most %d", len(p.Except), MaxPolicyCIDRs)
	}
	for _, e := range p.Except {
		within := func(c netip.Prefix) bool { return c.Bits() <= e.Bits() && c.Contains(e.Addr()) }
		if !slices.ContainsFunc(p.CIDRs, within) {
			return fmt.Errorf("except_cidrs: %s is in none of the networks of to_cidrs: there is nothing to take it out of", e)
		}
	}
	return nil
}
