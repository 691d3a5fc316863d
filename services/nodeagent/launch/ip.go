package launch

import (
	"strconv"
	"strings"
)

const (
	ipv4Size = 4
	ipv6Size = 16
)

// parseIP reads an IPv4 or IPv6 address into 4 or 16 bytes. Package netip would do, but it is initialised only after
// half of the program.
func parseIP(text string) ([]byte, bool) {
	if !strings.Contains(text, ":") {
		return parseIPv4(text)
	}
	head, tail, short := strings.Cut(text, "::")
	before, ok := parseGroups(head)
	if !ok {
		return nil, false
	}
	if !short {
		return before, len(before) == ipv6Size
	}
	after, ok := parseGroups(tail)
	if !ok || len(before)+len(after) > ipv6Size-2 {
		return nil, false
	}
	addr := make([]byte, ipv6Size)
	copy(addr, before)
	copy(addr[ipv6Size-len(after):], after)
	return addr, true
}

// parseGroups reads one side of "::": groups of 16 bits, the last of which may be an IPv4 address.
func parseGroups(text string) ([]byte, bool) {
	var addr []byte
	if text == "" {
		return addr, true
	}
	for group := range strings.SplitSeq(text, ":") {
		if strings.Contains(group, ".") {
			v4, ok := parseIPv4(group)
			return append(addr, v4...), ok && strings.HasSuffix(text, group) && len(addr)+ipv4Size <= ipv6Size
		}
		n, err := strconv.ParseUint(group, 16, 16)
		if err != nil || len(group) > 4 || len(addr) == ipv6Size {
			return nil, false
		}
		addr = append(addr, byte(n>>8), byte(n))
	}
	return addr, true
}

func parseIPv4(text string) ([]byte, bool) {
	addr := make([]byte, 0, ipv4Size)
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || len(part) > 1 && part[0] == '0' || len(addr) == ipv4Size {
			return nil, false
		}
		addr = append(addr, byte(n))
	}
	return addr, len(addr) == ipv4Size
}
