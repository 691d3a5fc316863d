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

// checkFamily gives the errno of tcp_v4_connect and tcp_v6_connect for an address of another family.
func checkFamily(s *socktab.Socket, fd int, sa procmem.Sockaddr) syscall.Errno {
	if int(sa.Family) != s.Domain {
		if s.Domain == unix.AF_INET6 && sa.Family == unix.AF_INET {
			return syscall.EINVAL // shorter than sockaddr_in6
		}
		return syscall.EAFNOSUPPORT
	}
	if sa.Addr.Addr().Is4In6() && only6(fd, s) {
		return syscall.ENETUNREACH
	}
	return 0
}

// localhost makes the wildcard address what it means in a connect: this host.
func localhost(a netip.AddrPort) netip.AddrPort {
	switch {
	case !a.Addr().IsUnspecified():
		return a
	case a.Addr().Is4():
		return netip.AddrPortFrom(loopback4, a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
}

// clientAddress is the virtual local address of a connecting socket: the application's, or loopback towards loopback.
func (t *task) clientAddress(s *socktab.Socket, dest, host netip.AddrPort) netip.AddrPort {
	if s.Foreign {
		return host
	}
	port := host.Port()
	if s.Bound.IsValid() {
		port = s.Bound.Port()
		if !s.Bound.Addr().IsUnspecified() {
			return s.Bound
		}
	}
	if dest.Addr().IsLoopback() {
		if dest.Addr().Is4() {
			return netip.AddrPortFrom(loopback4, port) // the source of all of 127.0.0.0/8
		}
		return netip.AddrPortFrom(dest.Addr(), port)
	}
	return netip.AddrPortFrom(localAddr(t.app.Addr, t.d.cfg.NodeAddr, dest.Addr(), host.Addr()), port)
}
