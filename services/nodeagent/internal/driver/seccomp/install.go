package seccomp

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"appswitch.io/services/nodeagent/internal/crashpoint"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// Giving a socket to a caller takes two steps, installing it and answering the call with its number. Between them the
// agent may be killed, or a signal may take the caller out of its call: in both cases the caller has a descriptor that
// it doesn't know of. The next agent, or the caller's next call, finds it and answers with it.
//
// One gap is the kernel's: a signal that takes the caller out of its call within nanoseconds of the answer makes the call
// interrupted although SECCOMP_IOCTL_NOTIF_SEND has succeeded (seccomp_do_user_notification). Measured: once in 10,000
// calls under 6,700 signals a second.

// maxScan bounds the descriptors of a process that are looked at after a crash.
const maxScan = 1 << 20

// unheard is the result of a call whose caller a signal had taken out of it before the answer came. Natively such a call
// would have been over before the signal; here it is restarted (SA_RESTART), or made again after EINTR, and gets the
// result then. A thread that makes another call instead has given it up.
type unheard struct {
	nr     int32
	args   [6]uint64
	val    int64
	cookie uint64 // of the socket that was installed as descriptor val; 0 if none was
}

// install gives the caller a copy of fd and returns its number there, with which succeed must answer the call. With an
// errno nothing was installed and the call is not answered.
func (t *task) install(c *call, fd int, cookie uint64, cloexec bool) (int64, syscall.Errno) {
	t.inflight.note(c.slot, cookie)
	n, errno := sys.Inject(t.listener, c.id, fd, cloexec)
	return int64(n), errno
}

// succeed ends a call with a value.
func (t *task) succeed(c *call, val int64, installed uint64) {
	t.ended(c, 0)
	errno := sys.Reply(t.listener, c.id, val, 0)
	crashpoint.Here(crashpoint.AnswerGiven)
	if errno == syscall.ENOENT && once(c.nr) {
		if len(t.unheard) >= maxThreads {
			clear(t.unheard) // of threads that have exited since, nearly all
		}
		t.unheard[c.tid] = unheard{nr: c.nr, args: c.args, val: val, cookie: installed}
	}
	t.inflight.release(c.slot)
}

// once reports whether a call gives another result when it is made again. Datagrams are not kept: what is made again is
// another one, and UDP may lose and repeat them anyway.
func once(nr int32) bool {
	switch nr {
	case unix.SYS_SOCKET, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_BIND:
		return true
	}
	return false
}

// answered answers a call that was carried out already, before an earlier agent died or a signal came.
func (t *task) answered(c *call) bool {
	if u, ok := t.unheard[c.tid]; ok {
		delete(t.unheard, c.tid)
		if u.nr == c.nr && u.args == c.args && (u.cookie == 0 || t.holds(c.tid, int(u.val), u.cookie)) {
			t.succeed(c, u.val, u.cookie)
			return true
		}
	}
	if !c.replay || c.slot == noSlot {
		return false
	}
	if cookie := *t.inflight.cookie(c.slot); cookie != 0 {
		if fd, ok := t.find(c.tid, cookie); ok {
			t.succeed(c, int64(fd), cookie)
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
