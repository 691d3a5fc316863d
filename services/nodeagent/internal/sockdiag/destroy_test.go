package sockdiag

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socket makes a socket bound to a free port of an address.
func socket(t testing.TB, kind int, sa unix.Sockaddr) (fd int, cookie uint64) {
	t.Helper()
	domain := unix.AF_INET
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	return fd, cookieOfFD(t, fd)
}

func cookieOfFD(t testing.TB, fd int) uint64 {
	t.Helper()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

func loopback4() unix.Sockaddr { return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}} }
func loopback6() unix.Sockaddr { return &unix.SockaddrInet6{Addr: [16]byte{15: 1}} }
func mapped() unix.Sockaddr {
	return &unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
}

// events collects what a monitor says.
type events struct {
	mu        sync.Mutex
	seen      map[uint64]time.Time
	overflows int
	changed   chan struct{}
}

func (e *events) destroyed(cookies []uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range cookies {
		e.seen[c] = time.Now()
	}
	e.tell()
}

func (e *events) overflow() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.overflows++
	e.tell()
}

func (e *events) tell() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// await waits until a condition on the events holds.
func (e *events) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		e.mu.Lock()
		ok := holds()
		e.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-e.changed:
		case <-timeout:
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func (e *events) awaitCookies(t *testing.T, cookies ...uint64) {
	t.Helper()
	e.await(t, "destruction of every socket", func() bool {
		return !slices.ContainsFunc(cookies, func(c uint64) bool { return e.seen[c].IsZero() })
	})
}

// run runs a monitor until the end of the test, or until stop is called, and sees to it that it then ends.
func run(t *testing.T, m *DestroyMonitor) (e *events, stop func()) {
	t.Helper()
	e = &events{seen: map[uint64]time.Time{}, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx, e.destroyed, e.overflow) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(stop)
	return e, stop
}

func monitor(t *testing.T) *DestroyMonitor {
	t.Helper()
	m, err := OpenDestroy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestNoneOf300IsMissed(t *testing.T) {
	e, _ := run(t, monitor(t))
	var fds []int
	var cookies []uint64
	for i := range 300 {
		kind := []int{unix.SOCK_STREAM, unix.SOCK_DGRAM}[i%2]
		fd, cookie := socket(t, kind, []unix.Sockaddr{loopback4(), loopback6(), mapped()}[i%3])
		if kind == unix.SOCK_STREAM {
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
		}
		fds, cookies = append(fds, fd), append(cookies, cookie)
	}
	e.mu.Lock()
	for _, c := range cookies {
		if !e.seen[c].IsZero() {
			t.Errorf("socket %d is reported before it is closed", c)
		}
	}
	e.mu.Unlock()
	closed := time.Now()
	for _, fd := range fds {
		unix.Close(fd)
	}
	e.awaitCookies(t, cookies...)
	if d := time.Since(closed); d > 2*time.Second {
		t.Errorf("the events took %s", d)
	}
}

func TestLastCloseCounts(t *testing.T) {
	e, _ := run(t, monitor(t))
	fd, cookie := socket(t, unix.SOCK_STREAM, loopback4())
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	dup, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	other, otherCookie := socket(t, unix.SOCK_STREAM, loopback4())
	unix.Close(other)
	e.awaitCookies(t, otherCookie) // events come in order
	e.mu.Lock()
	if !e.seen[cookie].IsZero() {
		t.Error("reported although a descriptor is open")
	}
	e.mu.Unlock()
	closed := time.Now()
	unix.Close(dup)
	e.awaitCookies(t, cookie)
	if d := e.seen[cookie].Sub(closed); d > time.Second {
		t.Errorf("the event came %s after the close", d)
	}
}

func TestFreshSocketsAreReported(t *testing.T) {
	e, _ := run(t, monitor(t))
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		cookie := cookieOfFD(t, fd)
		unix.Close(fd)
		e.awaitCookies(t, cookie)
	}
}

// TestOverflow lets the kernel's queue run over, and sees that the monitor says so once and then goes on.
func TestOverflow(t *testing.T) {
	m := monitor(t)
	if err := unix.SetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // the kernel's least
		t.Fatal(err)
	}
	witness, _ := run(t, monitor(t))
	for range 100 {
		fd, cookie := socket(t, unix.SOCK_STREAM, loopback4())
		unix.Close(fd)
		witness.awaitCookies(t, cookie) // the kernel sends events later than the close
	}
	e, _ := run(t, m)
	e.await(t, "overflow", func() bool { return e.overflows == 1 })
	var cookies []uint64
	for range 20 { // one by one: the queue is short
		fd, cookie := socket(t, unix.SOCK_STREAM, loopback4())
		unix.Close(fd)
		e.awaitCookies(t, cookie)
		cookies = append(cookies, cookie)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.overflows != 1 {
		t.Errorf("%d overflows after %d more events, want 1", e.overflows, len(cookies))
	}
}

func TestRunEndsAtOnce(t *testing.T) {
	m := monitor(t)
	_, stop := run(t, m)
	time.Sleep(20 * time.Millisecond) // in the system call
	start := time.Now()
	stop()
	if d := time.Since(start); d > time.Second {
		t.Errorf("Run took %s to end", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := monitor(t).Run(ctx, nil, nil); err != nil {
		t.Errorf("Run of an ended context: %v", err)
	}
}

func TestRunOfAClosedMonitor(t *testing.T) {
	m := monitor(t)
	m.Close()
	if err := m.Run(t.Context(), nil, nil); err == nil {
		t.Error("Run of a closed monitor succeeds")
	}
}

// TestForgedEventsAreIgnored has a process send what only the kernel may say.
func TestForgedEventsAreIgnored(t *testing.T) {
	r := newReceiver()
	body := message(unix.AF_INET, Closed, 77)
	copy(r.buffers[0][:], netlink(unix.SOCK_DIAG_BY_FAMILY, body))
	r.headers[0].length = uint32(sizeNlHeader + len(body))
	r.names[0].Pid = 4711
	if got := r.cookies(1, nil); len(got) != 0 {
		t.Errorf("cookies %v of a forged event", got)
	}
	r.names[0].Pid = 0
	if got := r.cookies(1, nil); !slices.Equal(got, []uint64{77}) {
		t.Errorf("cookies %v, want 77", got)
	}
}
