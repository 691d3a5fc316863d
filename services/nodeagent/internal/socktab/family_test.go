package socktab

import (
	"net/netip"
	"testing"

	"appswitch.io/internal/ax"
)

// TestSenderFamily: a UDP client with an IPv6 address is seen at it by those that it knows by one, and at its node's by the others:
// by IPv4 sockets, which can't be shown it, and by those that it knows by an IPv4 address.
func TestSenderFamily(t *testing.T) {
	node := netip.MustParseAddr("10.0.0.1")
	for _, c := range []struct {
		name    string
		domain  int // of the server's socket
		service string
		asked   string // where the client has sent to
		want    string
	}{
		{"IPv6", inet6, "[fd00::2]:50000", "[fd00::1]:80", "[fd00::2]:50000"},
		{"IPv4", inet, "2.2.2.2:50000", "1.1.1.1:80", "2.2.2.2:50000"},
		{"IPv6 to IPv4", inet, "[fd00::2]:50000", "1.1.1.1:80", "10.0.0.1:50000"},
		{"IPv6 to IPv4, dual stack", inet6, "[fd00::2]:50000", "1.1.1.1:80", "10.0.0.1:50000"},
		{"IPv4 socket behind IPv6", inet, "[fd00::2]:50000", "[fd00::9]:80", "10.0.0.1:50000"},
		{"IPv4 to IPv6", inet6, "2.2.2.2:50000", "[fd00::1]:80", "2.2.2.2:50000"},
	} {
		table := newTable(nil)
		server := netip.AddrPortFrom(node, 40000)
		table.Add(Socket{Cookie: 1, App: "0000000a", Domain: c.domain, Proto: ax.UDP, State: Bound, Host: server})
		table.Add(Socket{Cookie: 2, App: "0000000b", Domain: inet6, Proto: ax.UDP, State: Bound, Host: netip.AddrPortFrom(node, 50000), Service: ap(c.service)})
		table.Converse(2, Session{Virtual: ap(c.asked), Real: server, Managed: true}, start)
		from, known := table.Sender(1, netip.AddrPortFrom(node, 50000), true, start)
		if !known || from.Virtual != ap(c.want) || from.Asked != ap(c.asked).Addr() {
			t.Errorf("%s: %+v, %v; want %s", c.name, from, known, c.want)
		}
		if back, ok := table.Session(1, ap(c.want), start); !ok || back.Real != netip.AddrPortFrom(node, 50000) {
			t.Errorf("%s: the answer goes to %+v, %v", c.name, back, ok)
		}
	}
}

func TestTakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		domain int
		bound  string
		only6  bool
		v4, v6 bool
	}{
		{"IPv4", inet, "0.0.0.0:80", false, true, false},
		{"dual stack", inet6, "[::]:80", false, true, true},
		{"IPv6 alone", inet6, "[::]:80", true, false, true},
		{"IPv4-mapped", inet6, "0.0.0.0:80", false, true, false},
		{"IPv4, not bound", inet, "", false, true, false},
		{"dual stack, not bound", inet6, "", false, true, true},
		{"IPv6 alone, not bound", inet6, "", true, false, true},
	} {
		s := Socket{Domain: c.domain, V6Only: c.only6}
		if c.bound != "" {
			s.Bound = ap(c.bound)
		}
		if v4, v6 := s.Takes(netip.MustParseAddr("1.1.1.1")), s.Takes(netip.MustParseAddr("fd00::1")); v4 != c.v4 || v6 != c.v6 {
			t.Errorf("%s: IPv4 %v, IPv6 %v", c.name, v4, v6)
		}
	}
}
