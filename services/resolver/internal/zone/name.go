package zone

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"appswitch.io/internal/ax"
)

// Limits of names, RFC 1035.
const (
	maxLabel = 63
	maxName  = 253
	// maxPrefix is what SRV queries put in front of a name ("_65535._tcp.") or SRV targets (a dashed IPv6 address).
	maxPrefix = 40
)

// ParseDomain checks a domain such as "appswitch.local" and returns it in lower case and fully qualified.
func ParseDomain(s string) (string, error) {
	d := strings.ToLower(strings.Trim(s, "."))
	if err := checkName(d); err != nil {
		return "", fmt.Errorf("domain %q: %w", s, err)
	}
	if len(d) > maxName/2 {
		return "", fmt.Errorf("domain %q: longer than %d characters", s, maxName/2)
	}
	return d + ".", nil
}

// Bare returns the key under which a name of the table is kept: lower case, without the domain and final dot. The
// error says why a name can't be looked up in DNS.
func Bare(name, origin string) (string, error) {
	bare := strings.ToLower(strings.TrimSuffix(name, "."))
	bare = strings.TrimSuffix(bare, "."+strings.TrimSuffix(origin, "."))
	if err := checkName(bare); err != nil {
		return "", fmt.Errorf("name %q: %w", name, err)
	}
	if len(bare)+1+len(origin)+maxPrefix > maxName {
		return "", fmt.Errorf("name %q: too long, at most %d characters under %s", name, maxName-maxPrefix-1-len(origin), origin)
	}
	if bare == localhost || strings.HasSuffix(bare, "."+localhost) {
		return "", fmt.Errorf("name %q: localhost is every application's own", name)
	}
	return bare, nil
}

func checkName(s string) error {
	if s == "" {
		return errors.New("empty")
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel {
			return fmt.Errorf("label %q has %d characters, want 1 to %d", label, len(label), maxLabel)
		}
		for i := range len(label) {
			c, inner := label[i], i > 0 && i < len(label)-1
			letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
			if !letter && (!inner || c != '-' && c != '_') {
				return fmt.Errorf("label %q: %q is not allowed there, use letters, digits and inner hyphens", label, c)
			}
		}
	}
	return nil
}

// lower returns s in lower case, without allocating if it already is.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// parents visits the names above one of several labels: b.c and c for a.b.c.
func parents(name string, visit func(string)) {
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return
		}
		name = parent
		visit(name)
	}
}

// service is what the front of an SRV name asks for: "_80._tcp.web", or "_tcp.web" with port 0.
type service struct {
	proto ax.Protocol
	port  uint16
}

// cutService takes "_80._tcp." or "_tcp." off a name.
func cutService(name string) (service, string, bool) {
	first, rest, ok := strings.Cut(name, ".")
	if !ok || len(first) < 2 || first[0] != '_' {
		return service{}, name, false
	}
	if proto, ok := protocolLabel(first); ok {
		return service{proto: proto}, rest, true
	}
	second, host, ok := strings.Cut(rest, ".")
	proto, known := protocolLabel(second)
	port, err := strconv.ParseUint(first[1:], 10, 16)
	if !ok || !known || err != nil || port == 0 || first[1] == '0' || first[1] == '+' {
		return service{}, name, false
	}
	return service{proto: proto, port: uint16(port)}, host, true
}

func protocolLabel(s string) (ax.Protocol, bool) {
	switch s {
	case "_tcp":
		return ax.TCP, true
	case "_udp":
		return ax.UDP, true
	}
	return 0, false
}

// dashed writes an address as a label: 10-0-0-1, or all eight groups of an IPv6 address.
func dashed(a netip.Addr) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == ':' {
			return '-'
		}
		return r
	}, a.StringExpanded())
}

// fromDashed reads what dashed wrote, and nothing else.
func fromDashed(label string) (netip.Addr, bool) {
	sep := "."
	if strings.Count(label, "-") == 7 {
		sep = ":"
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(label, "-", sep))
	return a, err == nil && dashed(a) == label
}

const (
	reverse4 = ".in-addr.arpa."
	reverse6 = ".ip6.arpa."
)

// fromReverse reads the address out of a name such as 1.0.0.10.in-addr.arpa. or its IPv6 kin.
func fromReverse(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, reverse4); ok {
		parts := strings.Split(s, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		parts[0], parts[1], parts[2], parts[3] = parts[3], parts[2], parts[1], parts[0]
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil
	}
	s, ok := strings.CutSuffix(name, reverse6)
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		digit := s[len(s)-1-2*i]
		v, err := strconv.ParseUint(string(digit), 16, 8)
		if err != nil || i > 0 && s[len(s)-2*i] != '.' {
			return netip.Addr{}, false
		}
		b[i/2] |= byte(v) << (4 * (1 - i%2))
	}
	a := netip.AddrFrom16(b)
	return a, !a.Is4In6()
}
