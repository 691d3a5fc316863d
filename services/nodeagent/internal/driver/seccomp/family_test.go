package seccomp

import (
	"net/netip"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
	"golang.org/x/sys/unix"
)

const (
	nodeIP = "10.0.0.1"
	appIP4 = "1.1.1.1"
	appIP6 = "fd00::1"
)

func addr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a
}

func TestOwnAddr(t *testing.T) {
	for _, c := range []struct {
		app  string
		v4   bool
		want string
	}{
		{appIP4, true, appIP4}, {appIP4, false, ""},
		{appIP6, false, appIP6}, {appIP6, true, nodeIP},
		{nodeIP, true, nodeIP}, {nodeIP, false, ""},
	} {
		if got := ownAddr(addr(c.app), addr(nodeIP), c.v4); got != addr(c.want) {
			t.Errorf("application %s, IPv4 %v: %v, want %q", c.app, c.v4, got, c.want)
		}
	}
}

// TestServiceAddr: where the sockets of servers are published. nginx has one of each of the first two kinds.
func TestServiceAddr(t *testing.T) {
	for _, c := range []struct {
		name, local, app string
		only6            bool
		want             string
	}{
		{"IPv4", "0.0.0.0", appIP4, false, appIP4},
		{"IPv6 only", "::", appIP4, true, ""},
		{"dual stack", "::", appIP4, false, appIP4},
		{"IPv4 in an application with IPv6", "0.0.0.0", appIP6, false, nodeIP},
		{"IPv6 only in one with IPv6", "::", appIP6, true, appIP6},
		{"dual stack in one with IPv6", "::", appIP6, false, appIP6},
		{"its own address", appIP6, appIP6, false, appIP6},
		{"its own address, IPv6 only", appIP6, appIP6, true, appIP6},
		{"its own IPv4 address besides", nodeIP, appIP6, false, nodeIP},
		{"IPv4 in one without address", "0.0.0.0", nodeIP, false, nodeIP},
		{"IPv6 only in one without address", "::", nodeIP, true, ""},
		{"loopback", "127.0.0.1", appIP4, false, ""},
		{"IPv6 loopback", "::1", appIP6, true, ""},
	} {
		local := netip.AddrPortFrom(addr(c.local), 80)
		s := &socktab.Socket{Local: local, Bound: local, V6Only: c.only6}
		if got := serviceAddr(addr(c.app), addr(nodeIP), s); got != addr(c.want) {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
		}
	}
}

func TestLocalAddr(t *testing.T) {
	for _, c := range []struct{ name, app, dest, host, want string }{
		{"IPv4 to IPv4", appIP4, "1.1.1.2", nodeIP, appIP4},
		{"IPv6 to IPv6", appIP6, "fd00::2", nodeIP, appIP6},
		{"IPv6 to IPv4", appIP6, "1.1.1.2", nodeIP, nodeIP},
		{"IPv4 to virtual IPv6", appIP4, "fd00::2", nodeIP, appIP4},
		{"no address to virtual IPv6", nodeIP, "fd00::2", nodeIP, nodeIP},
		{"IPv4 to IPv6 outside", appIP4, "2001:db8::7", "2001:db8::1", "2001:db8::1"},
		{"IPv6 to IPv6 outside", appIP6, "2001:db8::7", "2001:db8::1", appIP6},
	} {
		if got := localAddr(addr(c.app), addr(nodeIP), addr(c.dest), addr(c.host)); got != addr(c.want) {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

func TestFit(t *testing.T) {
	peer := func(local, remote string) socktab.Peer {
		return socktab.Peer{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
	}
	client, server := netip.MustParseAddrPort("10.0.0.2:50000"), netip.MustParseAddrPort("1.1.1.1:80")
	for _, c := range []struct {
		name   string
		domain int
		in     socktab.Peer
		want   socktab.Peer
	}{
		{"IPv4", unix.AF_INET, peer("1.1.1.9:80", "2.2.2.2:1"), peer("1.1.1.9:80", "2.2.2.2:1")},
		{"IPv4 behind IPv6", unix.AF_INET, peer("[fd00::9]:80", "[fd00::2]:1"), peer("1.1.1.1:80", "10.0.0.2:50000")},
		{"IPv4 client of that", unix.AF_INET, peer("[fd00::9]:80", "2.2.2.2:1"), peer("1.1.1.1:80", "2.2.2.2:1")},
		{"IPv6", unix.AF_INET6, peer("[fd00::9]:80", "2.2.2.2:1"), peer("[fd00::9]:80", "2.2.2.2:1")},
	} {
		if got := fit(c.in, c.domain, client, server); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestEndpointName: a name leads to the application's own address, not to the node's that its IPv4 sockets have.
func TestEndpointName(t *testing.T) {
	app := App{App: ax.App{ID: "0badcafe", Name: "web", Addr: addr(appIP6)}}
	for service, want := range map[string]string{"[fd00::1]:80": "web", "10.0.0.1:80": ""} {
		s := socktab.Socket{App: "0badcafe", Proto: ax.TCP, Service: netip.MustParseAddrPort(service), Host: netip.MustParseAddrPort("10.0.0.1:40000")}
		if e := Endpoint(app, s); e.Name != want {
			t.Errorf("%s has the name %q, want %q", service, e.Name, want)
		}
	}
}
