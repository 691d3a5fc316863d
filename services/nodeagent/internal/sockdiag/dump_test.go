package sockdiag

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"appswitch.io/internal/ax"
	"golang.org/x/sys/unix"
)

func dumpAll(t *testing.T) map[uint64]Sock {
	t.Helper()
	all := map[uint64]Sock{}
	if err := Dump(func(s Sock) { all[s.Cookie] = s }); err != nil {
		t.Fatal(err)
	}
	return all
}

func localOf(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	t.Fatalf("address %v", sa)
	return netip.AddrPort{}
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// want is the entry that a socket of ours should have in a dump.
func want(t *testing.T, fd, family int, proto ax.Protocol, state State) Sock {
	t.Helper()
	t.Cleanup(func() { unix.Close(fd) })
	return Sock{
		Cookie: cookieOfFD(t, fd), Family: family, Proto: proto, State: state, Local: localOf(t, fd),
		Remote: netip.AddrPortFrom(netip.IPv4Unspecified(), 0), Inode: inodeOf(t, fd), UID: uint32(os.Getuid()),
	}
}

func TestDump(t *testing.T) {
	none6 := netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	var wanted []Sock
	for _, c := range []struct {
		sa     unix.Sockaddr
		family int
	}{{loopback4(), unix.AF_INET}, {loopback6(), unix.AF_INET6}, {mapped(), unix.AF_INET6}, {&unix.SockaddrInet6{}, unix.AF_INET6}} {
		fd, _ := socket(t, unix.SOCK_STREAM, c.sa)
		if err := unix.Listen(fd, 5); err != nil {
			t.Fatal(err)
		}
		listener := want(t, fd, c.family, ax.TCP, Listen)
		fd, _ = socket(t, unix.SOCK_DGRAM, c.sa)
		unconnected := want(t, fd, c.family, ax.UDP, Closed)
		if c.family == unix.AF_INET6 {
			listener.Remote, unconnected.Remote = none6, none6
		}
		wanted = append(wanted, listener, unconnected)

		fd, _ = socket(t, unix.SOCK_DGRAM, c.sa)
		peer, _ := socket(t, unix.SOCK_DGRAM, c.sa)
		t.Cleanup(func() { unix.Close(peer) })
		to, err := unix.Getsockname(peer)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		connected := want(t, fd, c.family, ax.UDP, Established)
		connected.Remote = localOf(t, peer)
		if connected.Remote.Addr().IsUnspecified() { // a connect to the wildcard address goes to the loopback
			connected.Remote = netip.AddrPortFrom(netip.IPv6Loopback(), connected.Remote.Port())
		}
		wanted = append(wanted, connected)
	}
	all := dumpAll(t)
	for _, w := range wanted {
		if got := all[w.Cookie]; got != w {
			t.Errorf("dump has\n%+v, want\n%+v", got, w)
		}
	}
}

func TestDumpConnections(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		all := dumpAll(t)
		for _, c := range []net.Conn{client, server} {
			got := all[connCookie(t, c)]
			if got.State != Established || got.Proto != ax.TCP || got.Inode == 0 ||
				got.Local.String() != c.LocalAddr().String() || got.Remote.String() != c.RemoteAddr().String() {
				t.Errorf("dump has %+v, want %s to %s", got, c.LocalAddr(), c.RemoteAddr())
			}
		}
		cookie := connCookie(t, server)
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1)
		if _, err := server.Read(buf); err == nil {
			t.Fatal("read after the peer's end")
		}
		if got := dumpAll(t)[cookie]; got.State != CloseWait {
			t.Errorf("after the peer's end the state is %d, want %d", got.State, CloseWait)
		}
	}
}

func connCookie(t *testing.T, c net.Conn) (cookie uint64) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { cookie = cookieOfFD(t, int(fd)) }); err != nil {
		t.Fatal(err)
	}
	return cookie
}

// TestDumpOfUnlisted states what callers can't rely on: sockets without a port are not listed at all, TCP sockets that
// are only bound are since Linux 6.8.
func TestDumpOfUnlisted(t *testing.T) {
	fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fresh)
	bound, cookie := socket(t, unix.SOCK_STREAM, loopback4())
	defer unix.Close(bound)
	all := dumpAll(t)
	if s, ok := all[cookieOfFD(t, fresh)]; ok {
		t.Errorf("a fresh socket is listed: %+v", s)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	s, listed := all[cookie]
	if modern := major > 6 || major == 6 && minor >= 8; listed != modern || listed && s.State != Closed {
		t.Errorf("bound TCP socket on Linux %d.%d: listed %v, %+v", major, minor, listed, s)
	}
}

// TestDumpIsLong has more sockets than fit into one datagram.
func TestDumpIsLong(t *testing.T) {
	cookies := map[uint64]bool{}
	for range 700 {
		fd, cookie := socket(t, unix.SOCK_DGRAM, loopback4())
		defer unix.Close(fd)
		cookies[cookie] = true
	}
	for cookie := range dumpAll(t) {
		delete(cookies, cookie)
	}
	if len(cookies) > 0 {
		t.Errorf("%d sockets are not listed", len(cookies))
	}
}
