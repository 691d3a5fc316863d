package seccomp

import (
	"net/netip"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// dispatch carries out a call, or parks it.
func (t *task) dispatch(c *call) {
	switch c.nr {
	case unix.SYS_SOCKET:
		t.socket(c)
	case unix.SYS_BIND:
		t.bind(c)
	case unix.SYS_LISTEN:
		t.listen(c)
	case unix.SYS_CONNECT:
		t.connect(c)
	case unix.SYS_ACCEPT:
		t.accept(c, 0)
	case unix.SYS_ACCEPT4:
		t.accept(c, c.int(3))
	case unix.SYS_GETSOCKNAME:
		t.getsockname(c)
	case unix.SYS_GETPEERNAME:
		t.getpeername(c)
	case unix.SYS_GETSOCKOPT:
		t.getsockopt(c)
	case unix.SYS_SENDTO:
		t.sendto(c)
	case unix.SYS_RECVFROM:
		t.recvfrom(c)
	case unix.SYS_SENDMSG:
		t.sendmsg(c)
	case unix.SYS_RECVMSG:
		t.recvmsg(c)
	case unix.SYS_SENDMMSG:
		t.sendmmsg(c)
	case unix.SYS_RECVMMSG:
		t.recvmmsg(c)
	case unix.SYS_DUP, unix.SYS_FCNTL:
		t.dup(c)
	default:
		t.d.deps.Log.Error("call is not one that the filter hands over", "nr", c.nr, "app", t.app.ID)
		t.fail(c, syscall.ENOSYS)
	}
}

// socketKind says whose a descriptor is.
type socketKind uint8

const (
	managed   socketKind = iota // made by socket() under AppSwitch, or adopted from outside
	unrelated                   // no internet socket: AF_UNIX, AF_NETLINK
)

// lookup duplicates the call's socket (its first argument). The caller closes the duplicate; kind unrelated and any
// errno come without one.
func (t *task) lookup(c *call) (fd int, s socktab.Socket, kind socketKind, errno syscall.Errno) {
	fd, errno = t.duplicate(c.tid, c.int(0))
	if errno != 0 {
		return -1, s, managed, errno
	}
	cookie, errno := sys.Cookie(fd)
	if errno != 0 {
		sys.Close(fd)
		return -1, s, managed, errno // ENOTSOCK
	}
	if s, ok := t.d.deps.Table.Get(cookie); ok {
		if s.SendTimeo != socktab.NoTimeo {
			t.restoreTimeout(fd, s)
		}
		return fd, s, managed, 0
	}
	if s, ok := t.adopt(fd, cookie); ok {
		return fd, s, managed, 0
	}
	sys.Close(fd)
	return -1, s, unrelated, 0
}

// restoreTimeout gives the application its SO_SNDTIMEO back, which an agent that died in connect.begin had borrowed.
func (t *task) restoreTimeout(fd int, s socktab.Socket) {
	_ = sys.SetSendTimeout(fd, unix.NsecToTimeval(int64(s.SendTimeo)))
	t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) { s.SendTimeo = socktab.NoTimeo })
}

func (t *task) duplicate(tid uint32, fd int) (int, syscall.Errno) {
	for range 2 {
		th, errno := t.thread(tid)
		if errno != 0 {
			return -1, errno
		}
		dup, errno := sys.PidfdGetfd(th.PIDFD, fd)
		if errno != syscall.ESRCH {
			return dup, errno
		}
		t.dropThread(tid) // the id belongs to a new thread meanwhile
	}
	return -1, syscall.ESRCH
}

// adopt enters an internet socket that the program was started with (inetd, socket activation): its addresses are
// the real ones, and what it connects to is decided like anything else.
func (t *task) adopt(fd int, cookie uint64) (socktab.Socket, bool) {
	domain, errno := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if errno != 0 || (domain != unix.AF_INET && domain != unix.AF_INET6) {
		return socktab.Socket{}, false
	}
	s := socktab.Socket{Cookie: cookie, App: t.app.ID, Domain: domain, Proto: ax.TCP, Foreign: true, SendTimeo: socktab.NoTimeo}
	if proto, _ := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); proto == unix.IPPROTO_UDP {
		s.Proto = ax.UDP
	}
	s.Host = realName(fd, sys.Getsockname)
	s.Local = s.Host
	s.Peer = realName(fd, sys.Getpeername)
	switch listening, _ := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); {
	case listening != 0:
		s.State = socktab.Listening
	case s.Peer.IsValid():
		s.State = socktab.Connected
	case s.Host.Port() != 0:
		s.State = socktab.Bound
	}
	t.d.deps.Table.Add(s)
	return s, true
}

// realName reads one of a socket's real addresses; invalid if it has none.
func realName(fd int, read func(int, []byte) (int, syscall.Errno)) netip.AddrPort {
	var buf [procmem.MaxSockaddr]byte
	n, errno := read(fd, buf[:])
	if errno != 0 {
		return netip.AddrPort{}
	}
	return decodeReal(buf[:min(n, len(buf))])
}

func decodeReal(b []byte) netip.AddrPort {
	sa, errno := procmem.ParseSockaddr(b)
	if errno != 0 || !sa.Addr.IsValid() {
		return netip.AddrPort{}
	}
	return unmap(sa.Addr)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
