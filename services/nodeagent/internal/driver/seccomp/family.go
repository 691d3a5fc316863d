package seccomp

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// The virtual addresses of an application are IPv4 or IPv6, and so are its sockets, but what is underneath is the node's
// address: an AF_INET6 socket uses that as an IPv4-mapped one. So IPv6 serves on hosts and networks that have none.

// ownAddr returns the application's address of a family. One that was given none of IPv4 has the node's, as if it had been
// given none at all; of IPv6 it may have none, and then the address returned is invalid.
func ownAddr(app, node netip.Addr, v4 bool) netip.Addr {
	switch {
	case app.Is4() == v4:
		return app
	case node.Is4() == v4:
		return node
	}
	return netip.Addr{}
}

func (t *task) ownAddr(v4 bool) netip.Addr { return ownAddr(t.app.Addr, t.d.cfg.NodeAddr, v4) }

// serviceAddr returns the address at which a listening socket is published: the one that it is bound to, or of those that a
// wildcard stands for the application's, else the node's. It is invalid if the socket takes IPv6 alone and the application
// has no such address: then it is reached from its own loopback at most.
func serviceAddr(app, node netip.Addr, s *socktab.Socket) netip.Addr {
	switch ip := s.Local.Addr(); {
	case ip.IsLoopback():
		return netip.Addr{}
	case !ip.IsUnspecified():
		return ip
	case s.Takes(app):
		return app
	case s.Takes(node):
		return node
	}
	return netip.Addr{}
}

// localAddr returns the address that a socket connects from, as it shows: the application's of the destination's family. An
// application without IPv6 address is seen at its IPv4 address, which is IPv4-mapped there; outside AppSwitch it uses one of
// the host's (host is the socket's real address), which it can as well know.
func localAddr(app, node, dest, host netip.Addr) netip.Addr {
	own := ownAddr(app, node, dest.Is4())
	switch {
	case own.IsValid():
		return own
	case host.Is4():
		return app
	}
	return host
}

// fit makes the addresses of an accepted connection ones that the socket can show. An IPv4 socket serves behind an IPv6
// address only for a virtual service: the client is then shown at its node's address, the server at its own.
func fit(p socktab.Peer, domain int, client, server netip.AddrPort) socktab.Peer {
	if domain != unix.AF_INET {
		return p
	}
	if !p.Remote.Addr().Is4() {
		p.Remote = client
	}
	if !p.Local.Addr().Is4() {
		p.Local = server
	}
	return p
}

// only6 reports whether a socket takes IPv6 alone, as its application knows it.
func only6(fd int, s *socktab.Socket) bool {
	return s.Domain == unix.AF_INET6 && (s.V6Only || v6only(fd))
}

// getsockopt shows IPV6_V6ONLY, the one option that the filter hands over, as the application has set it.
func (t *task) getsockopt(c *call) {
	fd, s, kind, errno := t.lookup(c)
	if errno == 0 && kind == managed {
		sys.Close(fd)
	}
	switch {
	case errno != 0:
		t.fail(c, errno)
		return
	case kind == unrelated || s.Domain != unix.AF_INET6 || !s.V6Only:
		t.pass(c) // the kernel knows as much
		return
	}
	room, errno := c.task().ReadUint32(c.args[4])
	if errno == 0 && int32(room) < 0 {
		errno = syscall.EINVAL
	}
	if errno == 0 && t.waits(c) {
		var value, size [4]byte
		binary.NativeEndian.PutUint32(value[:], 1)
		n := min(int(room), len(value))
		binary.NativeEndian.PutUint32(size[:], uint32(n))
		errno = sys.WriteMemory2(int(c.tid), c.args[3], value[:n], c.args[4], size[:])
	} else if errno == 0 {
		return
	}
	t.fail(c, errno)
}

// openTo4 lets a socket that takes IPv6 alone use a real address that is IPv4. From then on the table knows what the
// application has set. The kernel changes the option only while the socket has no port.
func (t *task) openTo4(fd int, s *socktab.Socket, real netip.Addr) {
	if s.Domain != unix.AF_INET6 || !real.Is4() || !v6only(fd) {
		return
	}
	s.V6Only = true
	t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) { s.V6Only = true }) // before, in case we die in between
	_ = sys.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)            // else bind or connect fails, and says so
}

// closeTo4 undoes openTo4 on a socket that has no port again: its application may change the option.
func (t *task) closeTo4(fd int, cookie uint64) {
	if s, ok := t.d.deps.Table.Get(cookie); !ok || !s.V6Only {
		return
	}
	if sys.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) == 0 {
		t.d.deps.Table.Update(cookie, func(s *socktab.Socket) { s.V6Only = false })
	}
}
