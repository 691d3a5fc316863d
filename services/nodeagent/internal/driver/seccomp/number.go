package seccomp

import (
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// The calls of the sendmsg family carry their addresses in memory, where a filter can't look, and stopping them on every
// socket would tax all the programs that use them over TCP. So UDP sockets, for which the addresses matter, get descriptor
// numbers from App.UDPFrom on, and the filter stops those calls on these numbers alone (package filter).

const (
	selectLimit = 1024 // FD_SETSIZE: programs that wait with select(2) can't take a number from here on
	maxProbes   = 4096 // numbers beyond it that are looked at for one socket
)

// numbers is where free numbers are looked for. They are taken from above, while the program gets its others from below: so
// the two meet only when the program has hardly any left.
type numbers struct {
	low  int // the next to try, downwards from selectLimit; 0: begin there
	high int // the next to try, upwards from selectLimit, for a program with a higher limit that has used up those
}

// installUDP is install for a UDP socket. If none of the numbers for such sockets is free, or the program has lowered its
// limit of open files below them, it gets the lowest one, as others do: its sendmsg family is then not translated.
func (t *task) installUDP(c *call, fd int, cookie uint64, cloexec bool) (int64, syscall.Errno) {
	if t.app.UDPFrom <= 0 {
		return t.install(c, fd, cookie, cloexec)
	}
	t.inflight.note(c.slot, cookie)
	return t.number(c, fd, cloexec)
}

func (t *task) number(c *call, fd int, cloexec bool) (int64, syscall.Errno) {
	top := selectLimit
	for {
		n, ok := t.freeNumber(c.tid, top)
		if !ok {
			break
		}
		// SECCOMP_ADDFD_FLAG_SETFD puts the socket in the place of whatever is there. That would be a file which the program
		// has opened since we looked, microseconds ago: on this number only if it has asked for it (dup2), or if every lower
		// one is taken.
		got, errno := sys.InjectAt(t.listener, c.id, fd, n, cloexec)
		if errno != syscall.EBADF {
			return int64(got), errno
		}
		limit := fileLimit(c.tid) // the number is beyond it
		if limit > n {
			break // can't be
		}
		top = limit
	}
	t.d.deps.Metrics.UDPUnnumbered.Inc()
	n, errno := sys.Inject(t.listener, c.id, fd, cloexec)
	return int64(n), errno
}

// freeNumber finds a number for a UDP socket that a thread's process has not in use.
func (t *task) freeNumber(tid uint32, top int) (int, bool) {
	first, nums := t.app.UDPFrom, &t.numbers
	if nums.low < first || nums.low >= top {
		nums.low = top - 1
	}
	for range top - first {
		n := nums.low
		if nums.low--; nums.low < first {
			nums.low = top - 1
		}
		if free, ok := t.isFree(tid, n); free || !ok {
			return n, ok
		}
	}
	limit := 0
	if top == selectLimit {
		limit = fileLimit(tid)
	}
	for range min(limit-selectLimit, maxProbes) {
		if nums.high < selectLimit || nums.high >= limit {
			nums.high = selectLimit
		}
		n := nums.high
		nums.high++
		if free, ok := t.isFree(tid, n); free || !ok {
			return n, ok
		}
	}
	return 0, false
}

// isFree reports whether a process has no descriptor of a number; not ok: that can't be said.
func (t *task) isFree(tid uint32, n int) (free, ok bool) {
	dup, errno := t.duplicate(tid, n)
	switch errno {
	case 0:
		sys.Close(dup)
		return false, true
	case syscall.EBADF:
		return true, true
	}
	return false, false
}

// fileLimit is a process's limit of open files, or 0.
func fileLimit(tid uint32) int {
	var limit unix.Rlimit
	if err := unix.Prlimit(int(tid), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30))
}

// dup sees to it that a duplicate of a UDP socket is known by its number, too. Anything else goes on natively, and so does
// dup2, which has a number given, the loss of which would be worse. Should the agent die before it has answered, the caller
// may be left with a second duplicate.
func (t *task) dup(c *call) {
	cloexec := false
	if c.nr == unix.SYS_FCNTL {
		if c.int(2) >= t.app.UDPFrom { // F_DUPFD's lower bound
			t.pass(c)
			return
		}
		if c.int(2) < 0 {
			t.pass(c) // EINVAL
			return
		}
		cloexec = c.int(1) == unix.F_DUPFD_CLOEXEC
	}
	fd, s, kind, errno := t.lookup(c)
	if errno != 0 || kind == unrelated || s.Proto != ax.UDP || t.app.UDPFrom <= 0 {
		if fd >= 0 {
			sys.Close(fd)
		}
		t.pass(c)
		return
	}
	n, errno := t.number(c, fd, cloexec)
	sys.Close(fd)
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	t.answer(c, n)
}
