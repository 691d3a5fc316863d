package vault

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/launch/uring"
	"appswitch.io/services/nodeagent/launch/wire"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const agentEnv = "VAULT_TEST_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" {
		agent()
		return
	}
	goleak.VerifyTestMain(m)
}

// holder is the process that outlives the agent.
type holder struct {
	ring *uring.Ring
	kept []int
}

func newHolder(t *testing.T) *holder {
	t.Helper()
	ring, errno := uring.New(1, wire.VaultPlaces)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(ring.Close)
	return &holder{ring: ring}
}

// handed returns copies of what a holder hands to an agent.
func (h *holder) handed(t *testing.T) (kept []int, ring int) {
	t.Helper()
	for _, fd := range h.kept {
		kept = append(kept, duplicate(t, fd))
	}
	return kept, duplicate(t, h.ring.FD())
}

// lost is what the holder does when the agent is gone.
func (h *holder) lost() {
	for _, fd := range h.ring.Take(wire.VaultPlaces) {
		sys.PutTransit(h.kept[0], fd)
		sys.Close(fd)
	}
}

func duplicate(t *testing.T, fd int) int {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return dup
}

// ways runs a test for both ways of protection.
func ways(t *testing.T, test func(t *testing.T, open func(t *testing.T, h *holder) *Vault)) {
	t.Helper()
	if !supported() {
		t.Fatal("this kernel can't do what the ring takes (Linux 6.10): only transit can be tested")
	}
	for _, byRing := range []bool{true, false} {
		t.Run(map[bool]string{true: "ring", false: "transit"}[byRing], func(t *testing.T) {
			test(t, func(t *testing.T, h *holder) *Vault {
				kept, ring := h.handed(t)
				v, err := New(kept)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(v.Close)
				if byRing {
					v.Entrust(ring)
				} else {
					sys.Close(ring)
				}
				for i, fd := range v.Kept() {
					if len(h.kept) <= i {
						h.kept = append(h.kept, duplicate(t, fd))
						t.Cleanup(func() { sys.Close(h.kept[i]) })
					}
				}
				return v
			})
		})
	}
}

func listen(t *testing.T, domain int, flags int) (fd int, address unix.Sockaddr) {
	t.Helper()
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	var at unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if domain == unix.AF_INET6 {
		at = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	if err := unix.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		t.Fatal(err)
	}
	if address, err = unix.Getsockname(fd); err != nil {
		t.Fatal(err)
	}
	return fd, address
}

func dial(t *testing.T, domain int, to unix.Sockaddr) int {
	t.Helper()
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	return fd
}

// closed reports whether the other end of a connection is gone, within a moment.
func closed(t *testing.T, fd int, within time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, int(within/time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	return p[0].Revents != 0
}

func TestAccept(t *testing.T) {
	ways(t, func(t *testing.T, open func(*testing.T, *holder) *Vault) {
		for _, domain := range []int{unix.AF_INET, unix.AF_INET6} {
			for _, flags := range []int{0, unix.SOCK_NONBLOCK} {
				v := open(t, newHolder(t))
				listener, address := listen(t, domain, flags)
				l := Listener{FD: listener, Nonblock: flags != 0}
				if _, errno := v.Accept(l, false); errno != syscall.EAGAIN {
					t.Fatalf("nobody connects: %v, want EAGAIN", errno)
				}
				client := dial(t, domain, address)
				c, errno := v.Accept(l, true)
				if errno != 0 {
					t.Fatal(errno)
				}
				local, _ := unix.Getsockname(client)
				port := 0
				switch a := local.(type) {
				case *unix.SockaddrInet4:
					port = a.Port
				case *unix.SockaddrInet6:
					port = a.Port
				}
				if int(c.Peer.Port()) != port || !c.Peer.Addr().IsLoopback() {
					t.Errorf("peer is %v, want port %d of loopback", c.Peer, port)
				}
				if sys.Flags(c.FD)&unix.O_NONBLOCK == 0 {
					t.Error("the connection is blocking")
				}
				if fdFlags, _ := unix.FcntlInt(uintptr(c.FD), unix.F_GETFD, 0); fdFlags&unix.FD_CLOEXEC == 0 {
					t.Error("the connection is not close-on-exec")
				}
				if sys.Flags(listener)&unix.O_NONBLOCK != flags {
					t.Error("the listening socket's flags were touched")
				}
				v.Settle(c)
				sys.Close(c.FD)
				if !closed(t, client, time.Second) {
					t.Error("somebody still has a connection that was settled and closed")
				}
			}
		}
	})
}

func TestAcceptOnWhatDoesNotListen(t *testing.T) {
	ways(t, func(t *testing.T, open func(*testing.T, *holder) *Vault) {
		v := open(t, newHolder(t))
		listener, address := listen(t, unix.AF_INET, 0)
		dial(t, unix.AF_INET, address)
		if err := unix.Shutdown(listener, unix.SHUT_RD); err != nil {
			t.Fatal(err)
		}
		if _, errno := v.Accept(Listener{FD: listener}, false); errno != syscall.EINVAL && errno != syscall.EAGAIN {
			t.Errorf("%v, want EINVAL", errno)
		}
		listener, address = listen(t, unix.AF_INET, 0)
		dial(t, unix.AF_INET, address)
		c, errno := v.Accept(Listener{FD: listener}, false)
		if errno != 0 {
			t.Fatalf("after a failure: %v", errno)
		}
		v.Settle(c)
		sys.Close(c.FD)
	})
}

// TestSettledOutOfOrder: the connection that is settled leaves, whichever came first.
func TestSettledOutOfOrder(t *testing.T) {
	ways(t, func(t *testing.T, open func(*testing.T, *holder) *Vault) {
		h := newHolder(t)
		v := open(t, h)
		listener, address := listen(t, unix.AF_INET, 0)
		var clients []int
		var conns []Conn
		for range 3 {
			clients = append(clients, dial(t, unix.AF_INET, address))
			c, errno := v.Accept(Listener{FD: listener}, false)
			if errno != 0 {
				t.Fatal(errno)
			}
			conns = append(conns, c)
		}
		v.Settle(conns[1])
		for _, c := range conns {
			sys.Close(c.FD)
		}
		if !closed(t, clients[1], time.Second) || closed(t, clients[0], 0) || closed(t, clients[2], 0) {
			t.Error("not the connection that was settled is gone")
		}
		v.Close()
		h.lost()
		next := open(t, h)
		left := next.Recover()
		if len(left) != 2 {
			t.Fatalf("%d connections are left, want 2", len(left))
		}
		for _, c := range left {
			next.Settle(c)
			sys.Close(c.FD)
		}
		if !closed(t, clients[0], time.Second) || !closed(t, clients[2], time.Second) {
			t.Error("a recovered connection that was settled and closed is still there")
		}
	})
}

// TestKilledWhileRecovering: an agent that is killed while it takes connections up leaves them to the next one, each once.
func TestKilledWhileRecovering(t *testing.T) {
	ways(t, func(t *testing.T, open func(*testing.T, *holder) *Vault) {
		h := newHolder(t)
		v := open(t, h)
		listener, address := listen(t, unix.AF_INET, 0)
		var clients []int
		for range 2 {
			clients = append(clients, dial(t, unix.AF_INET, address))
			c, errno := v.Accept(Listener{FD: listener}, false)
			if errno != 0 {
				t.Fatal(errno)
			}
			sys.Close(c.FD)
		}
		v.Close()
		h.lost()
		killed := open(t, h)
		all, _ := killed.inspect()
		for i := range all { // some are in both places when it happens
			if i == 0 {
				killed.toRing(&all[i])
			}
			sys.Close(all[i].FD)
		}
		killed.Close()
		h.lost()
		next := open(t, h)
		left := next.Recover()
		if len(all) != 2 || len(left) != 2 {
			t.Fatalf("%d and %d connections are left, want 2", len(all), len(left))
		}
		for _, c := range left {
			next.Settle(c)
			sys.Close(c.FD)
		}
		if !closed(t, clients[0], time.Second) || !closed(t, clients[1], time.Second) {
			t.Error("a recovered connection that was settled and closed is still there")
		}
	})
}

// TestMoreThanPlaces: what has no place in the ring goes another way.
func TestMoreThanPlaces(t *testing.T) {
	ways(t, func(t *testing.T, open func(*testing.T, *holder) *Vault) {
		h := newHolder(t)
		v := open(t, h)
		listener, address := listen(t, unix.AF_INET, 0)
		const n = wire.VaultPlaces + 3
		for range n {
			dial(t, unix.AF_INET, address)
			c, errno := v.Accept(Listener{FD: listener}, false)
			if errno != 0 {
				t.Fatal(errno)
			}
			sys.Close(c.FD)
		}
		v.Close()
		h.lost()
		left := open(t, h).Recover()
		for _, c := range left {
			sys.Close(c.FD)
		}
		if len(left) != n {
			t.Errorf("%d connections survive, want %d", len(left), n)
		}
	})
}

// TestHostileRing: what a holder hands over may be anything.
func TestHostileRing(t *testing.T) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	small, errno := uring.New(1, 1)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer small.Close()
	for name, ring := range map[string]int{"no ring": null, "too few places": duplicate(t, small.FD())} {
		v, err := New(nil)
		if err != nil {
			t.Fatal(err)
		}
		v.Entrust(ring)
		listener, address := listen(t, unix.AF_INET, 0)
		dial(t, unix.AF_INET, address)
		c, errno := v.Accept(Listener{FD: listener}, false)
		if errno != 0 {
			t.Errorf("%s: %v", name, errno)
		}
		v.Settle(c)
		sys.Close(c.FD)
		v.Close()
	}
}

// kills is how often TestKill kills an agent. Without the ring one in a few hundred loses a connection.
const kills = 150

// TestKill kills the agent again and again while connections come in; none is lost, wherever it was at that instant.
func TestKill(t *testing.T) {
	h := newHolder(t)
	first, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	h.kept = first.Kept()
	listener, address := listen(t, unix.AF_INET, unix.SOCK_NONBLOCK)
	to := fmt.Sprintf("127.0.0.1:%d", address.(*unix.SockaddrInet4).Port)

	stop := make(chan struct{})
	var served, failed atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := request(to); err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range kills {
		cmd, ready := startAgent(t, listener, h)
		<-ready
		time.Sleep(time.Duration(i%17) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.lost()
	}
	close(stop)
	cmd, ready := startAgent(t, listener, h) // serves the last requests
	<-ready
	clients.Wait()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	t.Logf("%d requests, %d failed, %d kills", served.Load(), failed.Load(), kills)
	if served.Load() < kills {
		t.Errorf("only %d requests", served.Load())
	}
}

// request connects and waits for what the agent says to every connection.
func request(to string) error {
	c, err := net.Dial("tcp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if b, err := io.ReadAll(c); err != nil || len(b) == 0 {
		return fmt.Errorf("connection was lost: %q %w", b, err)
	}
	return nil
}

func startAgent(t *testing.T, listener int, h *holder) (*exec.Cmd, <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), agentEnv+"=1")
	cmd.Stderr = os.Stderr
	for _, fd := range []int{listener, h.ring.FD(), h.kept[0], h.kept[1]} {
		f := os.NewFile(uintptr(duplicate(t, fd)), "")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(out).ReadString('\n')
		close(ready)
	}()
	return cmd, ready
}

// agent is the process that TestKill kills: it says a word to every connection, those left to it first.
func agent() {
	fail := func(what string, err any) {
		fmt.Fprintln(os.Stderr, what, err)
		os.Exit(1)
	}
	v, err := New([]int{5, 6})
	if err != nil {
		fail("vault", err)
	}
	v.Entrust(4)
	if v.ring == nil {
		fail("ring", "not taken")
	}
	fmt.Println("ready " + strconv.Itoa(os.Getpid()))
	say := func(c Conn) {
		// What stands for giving the connection to an application: it has it before it is settled.
		_, _ = unix.Write(c.FD, []byte("hello"))
		v.Settle(c)
		sys.Close(c.FD)
	}
	for _, c := range v.Recover() {
		say(c)
	}
	for {
		c, errno := v.Accept(Listener{FD: 3, Nonblock: true}, false)
		switch errno {
		case 0:
			say(c)
		case syscall.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: 3, Events: unix.POLLIN}}, 100)
		default:
			fail("accept", errno)
		}
	}
}
