package launch_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/wire"
)

// fakeAgent obeys the contract of package wire: it grants identities, takes listeners over and answers every
// notified socket() with an error that tests recognise.
type fakeAgent struct {
	t       testing.TB
	dir     string
	welcome wire.Welcome
	verdict func(call notification) syscall.Errno // nil: socket fails with errVerdict
	refuse  *wire.Error                           // answer to Hello
	deny    *wire.Error                           // answer to Attach
	mute    bool                                  // don't answer Attach at all
	forget  int                                   // attachments to refuse, as an agent does that was restarted

	listener *net.UnixListener
	wg       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	conns    map[*net.UnixConn]bool
	stops    []int // write ends of pipes that end the serving loops
	closed   bool
	hellos   []wire.Hello
	attaches []wire.Attach
	served   int
	last     string // identity granted
	changed  *sync.Cond
}

// identities granted by the agents of this process.
var identities atomic.Uint32

const errVerdict = syscall.EXDEV

// notification is struct seccomp_notif.
type notification struct {
	ID    uint64
	PID   uint32
	Flags uint32
	Nr    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

func startAgent(t testing.TB, dir string, change func(*fakeAgent)) *fakeAgent {
	t.Helper()
	a := &fakeAgent{
		t: t, dir: dir, conns: make(map[*net.UnixConn]bool),
		welcome: wire.Welcome{Version: wire.Version, Token: "secret", IP: "198.18.0.7", AgentTimeout: 30000},
	}
	a.changed = sync.NewCond(&a.mu)
	if own, err := os.Readlink("/proc/self/ns/net"); err == nil {
		a.welcome.Netns = own
	}
	if change != nil {
		change(a)
	}
	path := filepath.Join(dir, wire.SocketName)
	fresh := path + ".new" // moved into place: there is a socket at any time, as with the real agent
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: fresh, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(fresh, 0o666), os.Rename(fresh, path)); err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	a.listener = l
	a.wg.Go(a.accept)
	t.Cleanup(a.stop)
	return a
}

// stop ends the agent as a crash does: connections break, the socket's file stays.
func (a *fakeAgent) stop() {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return
	}
	a.closed = true
	_ = a.listener.Close()
	for c := range a.conns {
		_ = c.Close()
	}
	for _, fd := range a.stops {
		_ = syscall.Close(fd)
	}
	a.mu.Unlock()
	a.wg.Wait()
}

func (a *fakeAgent) accept() {
	for {
		c, err := a.listener.AcceptUnix()
		if err != nil {
			return
		}
		a.mu.Lock()
		if a.closed {
			_ = c.Close()
			a.mu.Unlock()
			return
		}
		a.conns[c] = true
		a.mu.Unlock()
		a.wg.Go(func() {
			if err := a.talk(c); err != nil {
				a.t.Error(err)
			}
			_ = c.Close()
		})
	}
}

func (a *fakeAgent) talk(c *net.UnixConn) error {
	buffer, oob := make([]byte, wire.MaxMessage+1), make([]byte, 256)
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buffer, oob)
		if err != nil || n == 0 {
			return nil //nolint:nilerr // the client left, or stop
		}
		m, err := wire.Unmarshal(buffer[:n])
		if err != nil {
			return err
		}
		var fds []int
		if cmsgs, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(cmsgs) == 1 {
			if fds, err = syscall.ParseUnixRights(&cmsgs[0]); err != nil {
				return err
			}
		}
		answer, err := a.handle(m, fds)
		if err != nil {
			return err
		}
		if answer == nil {
			continue
		}
		b, err := answer.Marshal()
		if err != nil {
			return err
		}
		if _, err := c.Write(b); err != nil || answer.Error != nil {
			return nil //nolint:nilerr // the client left
		}
	}
}

func (a *fakeAgent) handle(m wire.Message, fds []int) (*wire.Message, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.changed.Broadcast()
	switch {
	case m.Hello != nil:
		a.hellos = append(a.hellos, *m.Hello)
		if a.refuse != nil {
			return &wire.Message{Error: a.refuse}, nil
		}
		w := a.welcome
		// Never the same twice, so that tests find their holders by it.
		w.AppID = fmt.Sprintf("%04x%04x", os.Getpid()&0xffff, identities.Add(1)&0xffff)
		a.last = w.AppID
		return &wire.Message{Welcome: &w}, nil
	case m.Attach != nil:
		if len(fds) != 2 {
			return nil, fmt.Errorf("attach with %d descriptors", len(fds))
		}
		known := false
		for _, old := range a.attaches {
			known = known || old.AppID == m.Attach.AppID
		}
		forgotten := a.forget > 0
		if forgotten {
			a.forget--
		}
		if a.deny != nil || a.mute || a.closed || known || forgotten {
			_ = syscall.Close(fds[0])
			_ = syscall.Close(fds[1])
		}
		if forgotten {
			return &wire.Message{Error: &wire.Error{Code: wire.CodeUnknownApp, Message: "unknown"}}, nil
		}
		if a.deny != nil {
			return &wire.Message{Error: a.deny}, nil
		}
		a.attaches = append(a.attaches, *m.Attach)
		if a.mute {
			return nil, nil
		}
		if !known && !a.closed {
			var p [2]int
			if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
				return nil, err
			}
			a.stops = append(a.stops, p[1])
			a.wg.Go(func() { a.serve(fds[0], fds[1], p[0]) })
		}
		return &wire.Message{Attached: &wire.Attached{Version: wire.Version}}, nil
	}
	return nil, errors.New("unexpected message")
}

// serve answers calls until the program ends or the agent stops.
func (a *fakeAgent) serve(listener, memory, stop int) {
	defer func() {
		for _, fd := range []int{listener, memory, stop} {
			_ = syscall.Close(fd)
		}
	}()
	j, err := syscall.Mmap(memory, 0, wire.JournalSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		a.t.Error(err)
		return
	}
	defer func() { _ = syscall.Munmap(j) }()
	type pollFD struct {
		fd              int32
		events, revents int16
	}
	for {
		fds := []pollFD{{fd: int32(listener), events: 1}, {fd: int32(stop)}}
		_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), 2, 0, 0, 0, 0)
		if errno != 0 && errno != syscall.EINTR {
			a.t.Error(errno)
			return
		}
		if fds[0].revents&0x10 != 0 || fds[1].revents != 0 {
			return
		}
		if fds[0].revents&1 == 0 {
			continue
		}
		slot := (*notification)(unsafe.Pointer(&j[wire.JournalHeader]))
		*slot = notification{}
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(listener), 0xc0502100, uintptr(unsafe.Pointer(slot))); errno != 0 {
			continue
		}
		verdict := errGoOn
		if slot.Nr == syscall.SYS_SOCKET {
			verdict = errVerdict
		}
		if a.verdict != nil {
			verdict = a.verdict(*slot)
		}
		a.mu.Lock()
		a.served++
		a.changed.Broadcast()
		a.mu.Unlock()
		if verdict == errUnanswered {
			continue
		}
		response := struct {
			id           uint64
			val          int64
			error, flags int32
		}{id: slot.ID, error: -int32(verdict)}
		if verdict == errGoOn {
			response.error, response.flags = 0, 1
		}
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(listener), 0xc0182101, uintptr(unsafe.Pointer(&response)))
		slot.ID = 0
	}
}

// errGoOn lets the kernel do the call, as an agent does with those on AF_UNIX and AF_NETLINK sockets.
const errGoOn = syscall.Errno(4001)

// errUnanswered is the verdict of an agent that dies with the call in its journal.
const errUnanswered = syscall.Errno(4000)

// wait blocks until the condition holds, with the agent's lock held while it is evaluated.
func (a *fakeAgent) wait(what string, holds func() bool) {
	a.t.Helper()
	within(a.t, what, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return holds()
	})
}

// appID is the identity that the agent gave to the last program.
func (a *fakeAgent) appID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}
