package seccomp

import (
	"net/netip"
	"syscall"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"golang.org/x/sys/unix"
)

// TestCheckDestination: length before family, as tcp_v4_connect and tcp_v6_connect look at them.
func TestCheckDestination(t *testing.T) {
	inet := procmem.AppendSockaddr(nil, unix.AF_INET, netip.MustParseAddrPort("127.0.0.1:80"))
	inet6 := procmem.AppendSockaddr(nil, unix.AF_INET6, netip.MustParseAddrPort("[::1]:80"))
	mapped := procmem.AppendSockaddr(nil, unix.AF_INET6, netip.MustParseAddrPort("127.0.0.1:80"))
	long := append(append([]byte(nil), inet...), make([]byte, procmem.SizeInet6-procmem.SizeInet4)...)
	bound4 := netip.MustParseAddrPort("127.0.0.1:7000")
	for what, tt := range map[string]struct {
		domain int
		bound  netip.AddrPort
		raw    []byte
		want   syscall.Errno
	}{
		"IPv4":                             {unix.AF_INET, netip.AddrPort{}, inet, 0},
		"IPv6":                             {unix.AF_INET6, netip.AddrPort{}, inet6, 0},
		"IPv4 for IPv6":                    {unix.AF_INET6, netip.AddrPort{}, inet, syscall.EINVAL},
		"IPv4 for IPv6, long enough":       {unix.AF_INET6, netip.AddrPort{}, long, syscall.EAFNOSUPPORT},
		"IPv6 for IPv4":                    {unix.AF_INET, netip.AddrPort{}, inet6, syscall.EAFNOSUPPORT},
		"IPv6 of a socket bound to IPv4":   {unix.AF_INET6, bound4, inet6, syscall.EAFNOSUPPORT},
		"mapped of a socket bound to IPv4": {unix.AF_INET6, bound4, mapped, 0},
		"mapped of a socket bound to ::1":  {unix.AF_INET6, netip.MustParseAddrPort("[::1]:7000"), mapped, syscall.ENETUNREACH},
	} {
		sa, _ := procmem.ParseSockaddr(tt.raw)
		s := socktab.Socket{Proto: ax.TCP, Domain: tt.domain, Bound: tt.bound}
		if got := checkDestination(&s, -1, tt.raw, sa); got != tt.want {
			t.Errorf("%s: %v, want %v", what, got, tt.want)
		}
	}
}
