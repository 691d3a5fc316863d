package nodeagent

import (
	"net"
	"testing"
	"time"

	"appswitch.io/services/nodeagent/internal/sys"
)

// TestOpenSockets: a connection counts while a process has it open, and not while the kernel lets it linger.
func TestOpenSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
	clientCookie, serverCookie := cookie(t, client), cookie(t, server)
	expect := func(when string, want map[uint64]bool) {
		t.Helper()
		open, err := openSockets()
		if err != nil {
			t.Fatal(err)
		}
		for c, is := range want {
			if open[c] != is {
				t.Errorf("%s: socket %d is open: %v, want %v", when, c, open[c], is)
			}
		}
	}
	expect("connected", map[uint64]bool{clientCookie: true, serverCookie: true})
	client.Close() // first: it goes to FIN_WAIT_2, then TIME_WAIT
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = server.Read(make([]byte, 1)) // the end
	expect("half closed", map[uint64]bool{clientCookie: false, serverCookie: true})
	server.Close()
	expect("closed", map[uint64]bool{clientCookie: false, serverCookie: false})
}

func cookie(t *testing.T, c net.Conn) uint64 {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var cookie uint64
	if err := raw.Control(func(fd uintptr) { cookie, _ = sys.Cookie(int(fd)) }); err != nil || cookie == 0 {
		t.Fatalf("cookie %d, %v", cookie, err)
	}
	return cookie
}
