package seccomp

import (
	"net/netip"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/crashpoint"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	typeMask     = 0xf // SOCK_TYPE_MASK
	protoMPTCP   = 262 // IPPROTO_MPTCP
	maxSocktype  = 10  // SOCK_PACKET
	maxProto     = 263 // IPPROTO_MAX
	allowedFlags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
)

// socket makes a socket in the host's network namespace and installs it into the caller.
func (t *task) socket(c *call) {
	domain, typ := c.int(0), c.int(1)
	proto, kind, errno := checkSocket(domain, typ, c.int(2))
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	fd, errno := sys.Socket(domain, typ&^unix.SOCK_CLOEXEC|unix.SOCK_CLOEXEC, proto)
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	cookie, errno := sys.Cookie(fd)
	if errno != 0 {
		sys.Close(fd)
		t.fail(c, errno)
		return
	}
	// The entry comes first: once the descriptor is installed, another thread may use it.
	t.d.deps.Table.Add(socktab.Socket{Cookie: cookie, App: t.app.ID, Domain: domain, Proto: kind, SendTimeo: socktab.NoTimeo})
	crashpoint.Here(crashpoint.SocketMade)
	install := t.install
	if kind == ax.UDP {
		install = t.installUDP
	}
	n, errno := install(c, fd, cookie, typ&unix.SOCK_CLOEXEC != 0)
	crashpoint.Here(crashpoint.SocketInstalled)
	sys.Close(fd)
	if errno != 0 {
		t.d.deps.Table.Remove(cookie, now())
		t.fail(c, errno) // EMFILE: the caller's own limit. ENOENT: nobody hears it
		return
	}
	t.succeed(c, n, cookie)
}

// checkSocket admits TCP and UDP. Multipath TCP becomes plain TCP, as on a host without it; raw sockets need a
// privilege that no application has here (raw(7): EPERM); ping sockets are off (icmp(7), ping_group_range: EACCES). The
// rest is refused in the order of the kernel's inet_create.
func checkSocket(domain, typ, proto int) (realProto int, kind ax.Protocol, errno syscall.Errno) {
	if typ&^(typeMask|allowedFlags) != 0 {
		return 0, 0, syscall.EINVAL
	}
	switch {
	case typ&typeMask > maxSocktype, proto < 0, proto >= maxProto:
		return 0, 0, syscall.EINVAL
	}
	ping := unix.IPPROTO_ICMP
	if domain == unix.AF_INET6 {
		ping = unix.IPPROTO_ICMPV6
	}
	switch typ & typeMask {
	case unix.SOCK_STREAM:
		switch proto {
		case 0, unix.IPPROTO_TCP, protoMPTCP:
			return unix.IPPROTO_TCP, ax.TCP, 0
		}
		return 0, 0, syscall.EPROTONOSUPPORT
	case unix.SOCK_DGRAM:
		switch proto {
		case 0, unix.IPPROTO_UDP:
			return unix.IPPROTO_UDP, ax.UDP, 0
		case ping:
			return 0, 0, syscall.EACCES
		}
		return 0, 0, syscall.EPROTONOSUPPORT
	case unix.SOCK_RAW:
		if proto == 0 {
			return 0, 0, syscall.EPROTONOSUPPORT
		}
		return 0, 0, syscall.EPERM
	case unix.SOCK_PACKET:
		if domain == unix.AF_INET { // the old way to AF_PACKET
			return 0, 0, syscall.EPERM
		}
	}
	return 0, 0, syscall.ESOCKTNOSUPPORT
}

// getsockname shows the virtual local address.
func (t *task) getsockname(c *call) {
	t.name(c, func(fd int, s socktab.Socket) (netip.AddrPort, syscall.Errno) {
		if s.Local.IsValid() {
			return s.Local, 0
		}
		return datagramName(fd, s), 0
	})
}

// getpeername shows the virtual address of the peer, if the kernel says that there is one.
func (t *task) getpeername(c *call) {
	t.name(c, func(fd int, s socktab.Socket) (netip.AddrPort, syscall.Errno) {
		var buf [1]byte
		if _, errno := sys.Getpeername(fd, buf[:0]); errno != 0 {
			return netip.AddrPort{}, errno // ENOTCONN
		}
		if s.Peer.IsValid() {
			return s.Peer, 0
		}
		return netip.AddrPort{}, syscall.ENOTCONN
	})
}

func (t *task) name(c *call, pick func(int, socktab.Socket) (netip.AddrPort, syscall.Errno)) {
	fd, s, kind, errno := t.lookup(c)
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	if kind == unrelated {
		t.pass(c)
		return
	}
	addr, errno := pick(fd, s)
	sys.Close(fd)
	if errno == 0 && !t.waits(c) {
		return
	}
	if errno == 0 {
		errno = c.task().WriteSockaddr(c.args[1], c.args[2], s.Domain, addr)
		crashpoint.Here(crashpoint.NameShown)
	}
	t.fail(c, errno)
}

func wildcardOf(domain int, port uint16) netip.AddrPort {
	if domain == unix.AF_INET6 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}
