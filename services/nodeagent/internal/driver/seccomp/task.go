package seccomp

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"appswitch.io/services/nodeagent/internal/procfs"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/internal/vault"
	"golang.org/x/sys/unix"
)

const (
	maxThreads = 1024 // cached handles on threads of one application
	// sweepInterval is how often parked calls are asked whether they still wait: the kernel doesn't tell when a signal
	// has ended one.
	sweepInterval = 500 * time.Millisecond
)

// task serves one application. Only run's thread touches its fields, but for what mu guards.
type task struct {
	d        *Driver
	app      App
	listener int
	inflight *inflight
	gone     func()
	stop     bool
	inDoubt  bool // whether the application has exited, or there is an order to stop: a poll will tell

	epoll   int
	wake    int // eventfd
	handle  map[int32]func(events uint32)
	threads map[uint32]procfs.Task
	events  [64]unix.EpollEvent

	parked    map[uint64]*parked // by notification id
	byThread  map[uint32]*parked
	deadlines deadlines
	swept     time.Time

	vault     *vault.Vault            // connections on their way to the application
	names     nameSocket              // where its name lookups go
	unheard   map[uint32]unheard      // results that came too late, by thread
	accepts   map[uint64]*acceptQueue // by the listening socket's cookie
	snapshots []*connect              // connects that wait for the first snapshot

	numbers  numbers   // of descriptors of UDP sockets
	lookups  lookups   // name lookups on unconnected sockets
	rejected time.Time // when a closed connection was last logged
	policies policyLog // what policies decided and was told
	buf      []byte    // payload of one datagram

	// mu guards posted and closed.
	mu     sync.Mutex
	posted []func()
	closed bool // wake is no longer ours to write to

	hasPosts atomic.Bool
	tid      atomic.Int32 // of run's thread, for Interrupt; 0 when it has ended
}

// call is the one copy of an intercepted system call.
type call struct {
	id     uint64
	slot   int32
	tid    uint32
	nr     int32
	args   [6]uint64
	replay bool      // an earlier agent has received it and may have carried it out in part
	began  time.Time // when the thread took it up; zero once that time was measured
	came   time.Time // when it was received
	took   time.Duration
}

func (c *call) task() procmem.Task { return procmem.Task(c.tid) }
func (c *call) int(i int) int      { return int(int32(c.args[i])) }

func newTask(d *Driver, app App, handed Handover, gone func()) (*task, error) {
	t := &task{
		d: d, app: app, listener: handed.Listener, gone: gone, epoll: -1, wake: -1,
		handle: map[int32]func(uint32){}, threads: map[uint32]procfs.Task{},
		parked: map[uint64]*parked{}, byThread: map[uint32]*parked{}, accepts: map[uint64]*acceptQueue{}, unheard: map[uint32]unheard{},
	}
	err := t.openKept(handed)
	if err == nil {
		t.inflight, err = openInflight(handed.Journal)
	}
	sys.Close(handed.Journal)
	if err == nil {
		err = checkListener(handed.Listener)
	}
	if err == nil {
		t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	if err == nil {
		t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = t.watch(t.wake, unix.EPOLLIN, func(uint32) { t.drainWake() })
	}
	if err != nil {
		t.close()
		return nil, err
	}
	sys.SyncWakeUp(t.listener)
	return t, nil
}

func (t *task) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for _, fd := range []int{t.epoll, t.wake, t.listener} {
		if fd >= 0 {
			sys.Close(fd)
		}
	}
	if t.inflight != nil {
		t.inflight.close()
	}
	t.closeKept()
}

// watch calls handle with the events of fd, level-triggered, until unwatch.
func (t *task) watch(fd int, events uint32, handle func(events uint32)) error {
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	t.handle[int32(fd)] = handle
	return nil
}

// unwatch must come before fd is closed: a registration outlives the descriptor while a copy of it is open.
func (t *task) unwatch(fd int) {
	_ = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	delete(t.handle, int32(fd))
}

// post runs f on the task's thread: soon, if calls are parked there, else at the latest after the next call. It reports
// false, and f never runs, once the task has finished.
func (t *task) post(f func()) bool {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.posted = append(t.posted, f)
	t.hasPosts.Store(true)
	_, _ = unix.Write(t.wake, one[:]) // an eventfd: it fails only when it is raised already
	return true
}

func (t *task) drainWake() {
	var b [8]byte
	_, _ = unix.Read(t.wake, b[:])
	t.mu.Lock()
	posted := t.posted
	t.posted = nil
	t.hasPosts.Store(false)
	t.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// run serves until the application has exited, which it reports, or the task is told to stop.
func (t *task) run() (exited bool) {
	runtime.LockOSThread() // and never unlocked: the thread's signal mask must not leak into others
	tid, err := sys.BlockSignals()
	if err != nil {
		t.d.deps.Log.Error("block signals", "app", t.app.ID, "error", err)
	}
	t.tid.Store(int32(tid))
	defer t.tid.Store(0)
	stopRelay := t.startRelay()
	defer stopRelay()
	t.recoverConnections()
	t.replayAll()
	for !t.stop && !exited {
		switch {
		case t.inDoubt:
			t.inDoubt = false
			exited = t.poll(0)
		case t.idle():
			t.take()
		default:
			exited = t.poll(t.timeout())
		}
		t.expire()
	}
	t.finish()
	return exited
}

// idle reports whether nothing but the next call can happen, so that the thread may wait for that alone: one system call
// less for each, and the caller goes on only when the thread waits again. What the epoll has to say of threads that have
// exited comes with the sweep. An order to stop interrupts the wait (Driver.Run).
func (t *task) idle() bool {
	return len(t.parked) == 0 && len(t.accepts) == 0 && !t.hasPosts.Load() && sys.ReceiveEnds()
}

// poll waits for whatever comes first, or until timeout, in milliseconds; it reports whether the application has exited.
func (t *task) poll(timeout int) (exited bool) {
	// The listener is polled itself and not through the epoll: only so does the kernel hand the caller's processor
	// over to us at once (SyncWakeUp).
	poll := [2]unix.PollFd{{Fd: int32(t.listener), Events: unix.POLLIN}, {Fd: int32(t.epoll), Events: unix.POLLIN}}
	if _, err := unix.Poll(poll[:], timeout); err != nil && !errors.Is(err, syscall.EINTR) {
		t.d.deps.Log.Error("wait for calls", "app", t.app.ID, "error", err)
		t.stop = true
		return false
	}
	switch {
	case poll[0].Revents&unix.POLLIN != 0:
		t.take()
	case poll[0].Revents != 0:
		exited = true
	}
	if poll[1].Revents != 0 {
		t.handleEvents()
	}
	return exited
}

// handleEvents serves what calls are parked for.
func (t *task) handleEvents() {
	n, _ := unix.EpollWait(t.epoll, t.events[:], 0)
	for _, ev := range t.events[:max(n, 0)] {
		if h := t.handle[ev.Fd]; h != nil {
			h(ev.Events)
		}
	}
}

// take takes one call.
func (t *task) take() {
	slot, n := t.inflight.take()
	switch sys.Receive(t.listener, unsafe.Pointer(n)) {
	case 0:
		if t.hasPosts.Load() {
			t.drainWake() // it came while nothing but a call could wake us
		}
		t.begin(slot, n, false)
		return
	case syscall.EINVAL: // a hostile launcher wrote into the free slot
		*n = sys.Notify{}
	default: // ENOENT: cancelled meanwhile, or nobody is left; EINTR: told to stop
		t.inDoubt = true
	}
	t.inflight.release(slot)
}

// begin serves a call that was received into n.
func (t *task) begin(slot int32, n *sys.Notify, replay bool) {
	c := &call{id: n.ID, slot: slot, tid: n.TID, nr: n.NR, args: n.Args, replay: replay, began: now()}
	c.came = c.began
	if old := t.byThread[c.tid]; old != nil { // a thread is in one call at a time: a signal has ended the older one
		again := old.interrupted(c)
		if t.cancel(old); again {
			t.fail(c, syscall.EINTR)
			return
		}
	}
	if c.tid == 0 {
		t.fail(c, syscall.ENETDOWN) // in a process-id namespace that the agent can't see
		return
	}
	if !t.answered(c) {
		t.dispatch(c)
	}
}

// observe measures the time spent on a call, up to its answer or until it waits. It comes before the answer, as everything
// should: the kernel lets the caller go on where we ran, so that what we do afterwards is what it waits for.
func (t *task) observe(c *call) {
	if !c.began.IsZero() {
		c.took = time.Since(c.began)
		t.d.deps.Metrics.observe(c.nr, c.took)
		c.began = time.Time{}
	}
}

// answer ends a call with a value.
func (t *task) answer(c *call, val int64) { t.succeed(c, val, 0) }

// fail ends a call with an errno; 0 is success. If the caller is gone, nobody needs an error: the call is made anew.
func (t *task) fail(c *call, errno syscall.Errno) {
	if errno == 0 {
		t.succeed(c, 0, 0)
		return
	}
	t.ended(c, errno)
	_ = sys.Reply(t.listener, c.id, 0, errno)
	t.inflight.release(c.slot)
}

// pass lets the kernel carry out a call that is none of ours. Never for one whose arguments carry policy.
func (t *task) pass(c *call) {
	t.ended(c, 0)
	_ = sys.Continue(t.listener, c.id)
	t.inflight.release(c.slot)
}

// waits reports whether the caller still waits; if not, the call is over.
func (t *task) waits(c *call) bool {
	if sys.Valid(t.listener, c.id) {
		return true
	}
	t.inflight.release(c.slot)
	return false
}

// thread returns a handle on a thread of the application, kept until the thread exits.
func (t *task) thread(tid uint32) (procfs.Task, syscall.Errno) {
	if th, ok := t.threads[tid]; ok {
		return th, 0
	}
	th, err := procfs.Open(int(tid))
	if err != nil {
		return procfs.Task{}, syscall.ESRCH
	}
	if th.UID != t.app.UID && t.app.UID != 0 {
		// Only a forged journal names a thread of somebody else.
		th.Close()
		return procfs.Task{}, syscall.EPERM
	}
	if len(t.threads) >= maxThreads {
		for other := range t.threads {
			t.dropThread(other)
			break
		}
	}
	t.threads[tid] = th
	if err := t.watch(th.PIDFD, unix.EPOLLIN, func(uint32) { t.threadExited(tid) }); err != nil {
		t.d.deps.Log.Debug("thread is not watched", "tid", tid, "error", err)
	}
	return th, 0
}

func (t *task) threadExited(tid uint32) {
	t.dropThread(tid)
	if p := t.byThread[tid]; p != nil {
		t.cancel(p)
	}
}

func (t *task) dropThread(tid uint32) {
	if th, ok := t.threads[tid]; ok {
		t.unwatch(th.PIDFD)
		th.Close()
		delete(t.threads, tid)
		delete(t.unheard, tid)
	}
}

// finish lets go of everything. What is parked stays in the journal: the next agent takes it up again.
func (t *task) finish() {
	for _, p := range t.parked {
		p.abandon()
	}
	for _, q := range t.accepts {
		q.close()
	}
	for tid := range t.threads {
		t.dropThread(tid)
	}
	t.close()
}

// timeout returns how long the thread may sleep, in milliseconds.
func (t *task) timeout() int {
	if len(t.parked) == 0 && len(t.accepts) == 0 {
		return -1
	}
	wait := sweepInterval
	if len(t.deadlines) > 0 {
		wait = min(wait, time.Until(t.deadlines[0].deadline))
	}
	return int(max(wait+time.Millisecond-1, 0) / time.Millisecond)
}

// expire runs out the time of parked calls, drops those that no longer wait, and looks after threads that have exited.
func (t *task) expire() {
	now := now()
	for len(t.deadlines) > 0 && !t.deadlines[0].deadline.After(now) {
		p := heap.Pop(&t.deadlines).(*parked)
		if !p.over {
			p.deadline = time.Time{}
			p.expired()
		}
	}
	if now.Sub(t.swept) < sweepInterval {
		return
	}
	t.swept = now
	for id, p := range t.parked {
		if !sys.Valid(t.listener, id) {
			t.cancel(p)
		}
	}
	for _, q := range t.accepts {
		q.sweep()
	}
	t.handleEvents()
}
