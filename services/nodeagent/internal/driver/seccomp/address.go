package seccomp

import (
	"net/netip"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"golang.org/x/sys/unix"
)

// checkLength: the kernel looks at the length of an address before it looks at its family.
func checkLength(domain int, raw []byte) syscall.Errno {
	if domain == unix.AF_INET6 && len(raw) < procmem.MinInet6 || domain == unix.AF_INET && len(raw) < procmem.SizeInet4 {
		return syscall.EINVAL
	}
	return 0
}

// checkDestination gives the errno of tcp_v4_connect and tcp_v6_connect for an address that the socket can't connect to.
func checkDestination(s *socktab.Socket, fd int, raw []byte, sa procmem.Sockaddr) syscall.Errno {
	if s.Proto == ax.TCP {
		if errno := checkLength(s.Domain, raw); errno != 0 {
			return errno
		}
		bound4 := s.Domain == unix.AF_INET6 && s.Bound.Addr().Is4()
		if int(sa.Family) != s.Domain || bound4 && !sa.Addr.Addr().Is4In6() {
			return syscall.EAFNOSUPPORT
		}
		if s.Bound.Addr() == netip.IPv6Loopback() && sa.Addr.Addr().Is4In6() {
			return syscall.ENETUNREACH // from ::1 there is no way to IPv4
		}
	}
	return checkFamily(s, fd, sa)
}
