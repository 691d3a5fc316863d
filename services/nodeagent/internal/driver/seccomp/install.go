package seccomp

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// Giving a socket to a caller takes two steps, installing it and answering the call with its number. Between them the
// agent may be killed, or a signal may take the caller out of its call: in both cases the caller has a descriptor that
// it doesn't know of. The next agent, or the caller's next call of the same kind, finds it and answers with it.

// maxScan bounds the descriptors of a process that are looked at after a crash.
const maxScan = 1 << 20

// misplaced is a descriptor that its thread has not been told of.
type misplaced struct {
	nr     int32
	arg0   uint64 // the listening socket, or the domain
	fd     int
	cookie uint64
}

// install gives the caller a copy of fd, and answers the call with its number. With an errno nothing was installed and
// the call is not answered.
func (t *task) install(c *call, fd int, cookie uint64, cloexec bool) syscall.Errno {
	t.inflight.note(c.slot, cookie)
	n, errno := sys.Inject(t.listener, c.id, fd, cloexec)
	if errno != 0 {
		return errno
	}
	if sys.Reply(t.listener, c.id, int64(n), 0) == syscall.ENOENT {
		t.misplaced[c.tid] = misplaced{nr: c.nr, arg0: c.args[0], fd: n, cookie: cookie}
	}
	t.inflight.release(c.slot)
	return 0
}

// installed answers a call whose socket the caller has already, because an earlier agent died, or a signal came, before
// the call could be answered.
func (t *task) installed(c *call) bool {
	if m, ok := t.misplaced[c.tid]; ok {
		delete(t.misplaced, c.tid)
		if m.nr == c.nr && m.arg0 == c.args[0] && t.holds(c.tid, m.fd, m.cookie) {
			t.answer(c, int64(m.fd))
			return true
		}
	}
	if !c.replay || c.slot == noSlot {
		return false
	}
	switch c.nr {
	case unix.SYS_SOCKET, unix.SYS_ACCEPT, unix.SYS_ACCEPT4:
	default:
		return false
	}
	if cookie := *t.inflight.cookie(c.slot); cookie != 0 {
		if fd, ok := t.find(c.tid, cookie); ok {
			t.answer(c, int64(fd))
			return true
		}
	}
	return false
}

// holds reports whether a thread's descriptor is a certain socket.
func (t *task) holds(tid uint32, fd int, cookie uint64) bool {
	dup, errno := t.duplicate(tid, fd)
	if errno != 0 {
		return false
	}
	defer sys.Close(dup)
	got, errno := sys.Cookie(dup)
	return errno == 0 && got == cookie
}

// find looks for a socket among a thread's descriptors.
func (t *task) find(tid uint32, cookie uint64) (int, bool) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", tid))
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxScan)
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && t.holds(tid, fd, cookie) {
			return fd, true
		}
	}
	return 0, false
}
