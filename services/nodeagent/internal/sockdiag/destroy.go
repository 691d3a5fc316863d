package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of a monitor.
const (
	receiveBuffer = 16 << 20  // bytes that the kernel queues for us; more is an overflow
	batch         = 64        // events received by one system call
	eventBuffer   = 512       // bytes of an event that are received; what we need stands in front
	maxDrain      = 256 << 10 // events read after an overflow before it is reported in any case
	// pace is how long Run sleeps after it has read events, so that a node with many connections is not woken for each.
	pace = 2 * time.Millisecond
)

// The multicast groups, from linux/sock_diag.h.
var destroyGroups = []int{1, 2, 3, 4} // TCP, UDP, TCP over IPv6, UDP over IPv6

// DestroyMonitor receives an event for every socket of a network namespace that is destroyed. It polls its socket
// itself: the runtime's poller would wake a thread for every event, even while Run sleeps.
type DestroyMonitor struct {
	// Unanswered, if set before Run, is called with the cookie of a TCP socket whose connect got no answer at all, though it
	// was repeated, right before that cookie is reported with the others.
	Unanswered func(cookie uint64)

	fd    int
	wake  int // eventfd that ends a poll
	close sync.Once
	recv  *receiver
}

// OpenDestroy starts to listen: whatever is destroyed from now on is reported by Run.
func OpenDestroy() (*DestroyMonitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("socket destruction events: socket: %w", err)
	}
	if err := joinDestroy(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("socket destruction events: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("socket destruction events: eventfd: %w", err)
	}
	return &DestroyMonitor{fd: fd, wake: wake, recv: newReceiver()}, nil
}

func joinDestroy(fd int) error {
	// Without privilege over the machine the buffer is what net.core.rmem_max allows; overflows are then more likely.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	for _, group := range destroyGroups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("join group %d (needs Linux 4.5 with CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG): %w", group, err)
		}
	}
	return nil
}

// Close frees a monitor that is not running; Run closes its own.
func (m *DestroyMonitor) Close() error {
	m.close.Do(func() {
		unix.Close(m.fd)
		unix.Close(m.wake)
		m.fd, m.wake = -1, -1
	})
	return nil
}

// Run calls onDestroy with the cookies of destroyed sockets, a few at a time, until ctx ends; then it closes the
// monitor and returns nil. The slice is only valid during the call. After events were lost onOverflow is called, when
// every event that was not lost has been delivered: whatever is then not in a Dump is gone. Both are called from this
// goroutine and must be quick.
func (m *DestroyMonitor) Run(ctx context.Context, onDestroy func(cookies []uint64), onOverflow func()) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_, _ = unix.Write(m.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // not zero in either byte order
	})
	defer func() {
		if !stop() {
			<-stopped // it must not write to a descriptor that is somebody else's by now
		}
		_ = m.Close()
	}()
	overflow, drained := false, 0
	for ctx.Err() == nil {
		n, err := m.receive(overflow)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			overflow, drained = true, 0
			continue
		case err != nil:
			return fmt.Errorf("socket destruction events: %w", err)
		}
		if cookies := m.recv.cookies(n, m.Unanswered); len(cookies) > 0 {
			onDestroy(cookies)
		}
		// The kernel drops all events from the overflow until the queue has been read empty.
		if drained += n; overflow && (n < batch || drained >= maxDrain) {
			overflow = false
			onOverflow()
		}
		if n < batch && !overflow {
			time.Sleep(pace)
		}
	}
	return nil
}

// receive waits for events and receives up to a batch of them; if poll is set it returns 0 instead of waiting.
func (m *DestroyMonitor) receive(poll bool) (n int, err error) {
	for {
		n, errno := m.recv.receive(uintptr(m.fd))
		switch {
		case errno == 0:
			return n, nil
		case errno == unix.EAGAIN && poll:
			return 0, nil
		case errno != unix.EAGAIN && errno != unix.EINTR:
			return 0, errno
		}
		fds := [2]unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}, {Fd: int32(m.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("poll: %w", err)
		}
		if fds[1].Revents != 0 {
			return 0, nil // told to end
		}
	}
}

// receiver holds what recvmmsg(2) needs.
type receiver struct {
	headers [batch]mmsghdr
	vectors [batch]unix.Iovec
	names   [batch]unix.RawSockaddrNetlink
	buffers [batch][eventBuffer]byte
	found   []uint64
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

func newReceiver() *receiver { return &receiver{found: make([]uint64, 0, batch)} }

func (r *receiver) receive(fd uintptr) (int, syscall.Errno) {
	for i := range r.headers {
		r.vectors[i].Base = &r.buffers[i][0]
		r.vectors[i].SetLen(eventBuffer)
		h := &r.headers[i].header
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&r.names[i])), Namelen: unix.SizeofSockaddrNetlink, Iov: &r.vectors[i]}
		h.SetIovlen(1)
	}
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers)), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// cookies reads the cookies from the first n messages received, and calls unanswered with those of connects that got no
// answer.
func (r *receiver) cookies(n int, unanswered func(uint64)) []uint64 {
	r.found = r.found[:0]
	for i := range n {
		if r.names[i].Pid != 0 { // not from the kernel
			continue
		}
		r.found = appendCookies(r.found, r.buffers[i][:min(r.headers[i].length, eventBuffer)], unanswered)
	}
	return r.found
}

// appendCookies reads one datagram; what is malformed in it is left out.
func appendCookies(out []uint64, b []byte, unanswered func(uint64)) []uint64 {
	_ = eachMessage(b, func(kind, _ uint16, body []byte) error {
		if kind != unix.SOCK_DIAG_BY_FAMILY {
			return nil
		}
		if cookie, ok := cookieOf(body); ok {
			if unanswered != nil && gaveUp(body) {
				unanswered(cookie)
			}
			out = append(out, cookie)
		}
		return nil
	})
	return out
}
