package ax

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// TestSelectorText: what is written can be read, and means the same.
func TestSelectorText(t *testing.T) {
	for _, text := range []string{"a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a=b,c!=d,e in (f,g),!h,i"} {
		s, err := ParseSelector(text)
		if err != nil || s.String() != text {
			t.Errorf("%q is written as %q, %v", text, s, err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	exact, rest := Selector{{"a", SelectIn, []string{"b"}}, {"a", SelectNotIn, []string{"c"}}, {"d", SelectIn, []string{"e", "f"}}, {"g", SelectIn, []string{"h"}}}.Split()
	if !reflect.DeepEqual(exact, Labels{"a": "b", "g": "h"}) || rest.String() != "a!=c,d in (e,f)" {
		t.Errorf("split into %v and %q", exact, rest)
	}
}

func TestPolicyCanonical(t *testing.T) {
	cidr := netip.MustParsePrefix
	a := Policy{
		Name: "p", Action: PolicyDeny, From: Selector{{"b", SelectExists, nil}, {"a", SelectIn, []string{"x"}}, {"b", SelectExists, nil}},
		CIDRs: []netip.Prefix{cidr("::/0"), cidr("10.0.0.0/8"), cidr("::/0")}, Ports: []PortRange{{443, 443}, {80, 90}, {443, 443}},
	}
	b := Policy{
		Name: "p", Action: PolicyDeny, From: Selector{{"a", SelectIn, []string{"x"}}, {"b", SelectExists, nil}}, To: Selector{},
		CIDRs: []netip.Prefix{cidr("10.0.0.0/8"), cidr("::/0")}, Except: []netip.Prefix{}, Ports: []PortRange{{80, 90}, {443, 443}},
	}
	if before := fmt.Sprint(a); !reflect.DeepEqual(a.Canonical(), b.Canonical()) || fmt.Sprint(a) != before {
		t.Errorf("%+v\nand %+v", a.Canonical(), b.Canonical())
	}
}

func TestPolicyValidate(t *testing.T) {
	cidr := netip.MustParsePrefix
	for says, p := range map[string]Policy{
		"action: action(0) is not one":      {},
		"ports: 257: at most 256":           {Action: PolicyDeny, Ports: make([]PortRange, 257)},
		"ports: 9-8 is not":                 {Action: PolicyDeny, Ports: []PortRange{{9, 8}}},
		"protocol: protocol(7) is unknown":  {Action: PolicyDeny, Proto: 7},
		"audit: only a policy that denies":  {Action: PolicyAllow, Audit: true},
		"to_cidrs: 257: at most 256":        {Action: PolicyDeny, CIDRs: make([]netip.Prefix, 257)},
		"except_cidrs: 257: at most 256":    {Action: PolicyDeny, Except: make([]netip.Prefix, 257)},
		"except_cidrs: 10.0.0.0/7 is in no": {Action: PolicyDeny, CIDRs: []netip.Prefix{cidr("10.0.0.0/8")}, Except: []netip.Prefix{cidr("10.0.0.0/7")}},
		"from: 65 conditions: at most 64":   {Action: PolicyDeny, From: make(Selector, 65)},
		"to: 4": {Action: PolicyDeny, To: Selector{{"a", SelectIn, []string{
			strings.Repeat("v", 2000), strings.Repeat("w", 2100)}}}},
		`to: label "a=b,c": key and value must not contain`: {Action: PolicyDeny, To: Selector{{"a", SelectIn, []string{"b,c"}}}},
	} {
		if err := p.Validate(); err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestParseCIDR(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128", "::ffff:192.0.2.7": "192.0.2.7/32", "0.0.0.0/0": "0.0.0.0/0",
		"10.0.0.1/8": "", "::ffff:10.0.0.0/104": "", "fe80::1%eth0": "", "10.0.0.0/33": "", "10/8": "", "": "", "example.org": "",
	} {
		got := ""
		if c, err := ParseCIDR(text); err == nil {
			got = c.String()
		}
		if got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}
