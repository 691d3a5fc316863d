package attach

import (
	"net/netip"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
)

func TestVirtualAddr(t *testing.T) {
	with, without := func() bool { return true }, func() bool { return false }
	for _, c := range []struct {
		text    string
		hasIPv6 func() bool
		want    string // or what the error says
	}{
		{"1.1.1.1", without, "1.1.1.1"},
		{"2001:db8::1", with, "2001:db8::1"},
		{"FD00:0:0::1", with, "fd00::1"},
		{"fd00::1", without, "IPv6 switched off"},
		{"web", with, "want an IPv4 or IPv6 address"},
		{"1.1.1", with, "want an IPv4 or IPv6 address"},
		{"[fd00::1]", with, "want an IPv4 or IPv6 address"},
		{"fd00::1/64", with, "want an IPv4 or IPv6 address"},
		{"::ffff:1.1.1.1", with, "write 1.1.1.1"},
		{"fe80::1", with, "link-local"},
		{"fe80::1%eth0", with, "zone"},
		{"169.254.0.1", with, "link-local"},
		{"ff02::1", with, "not the address of one service"},
		{"::", with, "not the address of one service"},
		{"0.0.0.0", with, "not the address of one service"},
		{"255.255.255.255", with, "not the address of one service"},
		{"::1", with, "loopback"},
		{"127.0.0.2", with, "loopback"},
	} {
		a, err := virtualAddr(c.text, c.hasIPv6)
		if err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `--ip "`+c.text+`"`)) || err == nil && a.String() != c.want {
			t.Errorf("--ip %s: %v, %v; want %q", c.text, a, err, c.want)
		}
	}
}

func TestSecondAddress(t *testing.T) {
	for _, c := range []struct{ node, first, want string }{
		{"10.0.0.1", "fd00::1", "10.0.0.1"},
		{"10.0.0.1", "1.1.1.1", ""},
		{"10.0.0.1", "10.0.0.1", ""},
		{"2001:db8::1", "fd00::1", ""},
	} {
		m := &Manager{cfg: Config{Node: ax.Node{Addr: netip.MustParseAddr(c.node)}}}
		if got := m.second(netip.MustParseAddr(c.first)); got != c.want {
			t.Errorf("node %s, application %s: %q, want %q", c.node, c.first, got, c.want)
		}
	}
}
