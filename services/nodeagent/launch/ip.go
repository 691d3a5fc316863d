package launch

import (
	"strconv"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

const (
	ipv4Size = 4
	ipv6Size = 16
)

// parseIP reads an IPv4 or IPv6 address into 4 or 16 bytes. Package netip would do, but it is initialised only after
// half of the program.
func parseIP(s string) ([]byte, bool) {
	if !text.Contains(s, ':') {
		return parseIPv4(s)
	}
	gap := -1 // where "::" is
	for i := 0; i+1 < len(s) && gap < 0; i++ {
		if s[i:i+2] == "::" {
			gap = i
		}
	}
	if gap < 0 {
		addr, ok := parseGroups(s, true)
		return addr, ok && len(addr) == ipv6Size
	}
	before, ok := parseGroups(s[:gap], false)
	if !ok {
		return nil, false
	}
	after, ok := parseGroups(s[gap+2:], true)
	if !ok || len(before)+len(after) > ipv6Size-2 {
		return nil, false
	}
	addr := make([]byte, ipv6Size)
	copy(addr, before)
	copy(addr[ipv6Size-len(after):], after)
	return addr, true
}

// parseGroups reads what is on one side of "::": groups of 16 bits, the last of which may be an IPv4 address if the
// address ends there.
func parseGroups(s string, end bool) ([]byte, bool) {
	if s == "" {
		return nil, true
	}
	var addr []byte
	groups := text.Split(s, ':')
	for i, group := range groups {
		if text.Contains(group, '.') {
			v4, ok := parseIPv4(group)
			return append(addr, v4...), ok && end && i == len(groups)-1 && len(addr)+ipv4Size <= ipv6Size
		}
		n, err := strconv.ParseUint(group, 16, 16)
		if err != nil || len(group) > 4 || len(addr) == ipv6Size {
			return nil, false
		}
		addr = append(addr, byte(n>>8), byte(n))
	}
	return addr, true
}

func parseIPv4(s string) ([]byte, bool) {
	addr := make([]byte, 0, ipv4Size)
	for _, part := range text.Split(s, '.') {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || len(part) > 1 && part[0] == '0' || len(addr) == ipv4Size {
			return nil, false
		}
		addr = append(addr, byte(n))
	}
	return addr, len(addr) == ipv4Size
}
