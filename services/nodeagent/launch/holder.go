package launch

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/uring"
	"appswitch.io/services/nodeagent/launch/wire"
)

// The holder keeps a program's listener and journal alive while agents come and go. It has three duties: attach to
// every new agent; answer the program's calls with ENETDOWN once no agent has been there for the agent timeout, so
// that nothing waits for ever; and end with the program. The last must never wait for the others, so one thread polls
// and never blocks, and a second one, started when it is first needed, answers calls.

const minimumTimeout = 100 // milliseconds; less would answer calls while an agent restarts

// The environment of a holder.
const (
	holderEnv        = "AX_HOLDER"         // the packet that attaches it, in hexadecimal digits
	holderTimeoutEnv = "AX_HOLDER_TIMEOUT" // wire.Welcome.AgentTimeout
	holderKeptEnv    = "AX_HOLDER_KEPT"    // how many descriptors it keeps for the agents, from holderKept on
	holderRunDirEnv  = "AX_RUN_DIR"
)

// holderState is what a holder must know.
type holderState struct {
	runDir  string
	timeout int // wire.Welcome.AgentTimeout
	attach  wire.Attach
	kept    []int // what the agent wants to have survive itself (wire.Attached)
}

func (s holderState) environ() ([]string, error) {
	s.attach.Holder = true
	packet, err := wire.Message{Attach: &s.attach}.Marshal()
	if err != nil {
		return nil, err
	}
	return []string{
		text.Join(holderEnv, "=", toHex(packet)),
		text.Join(holderTimeoutEnv, "=", strconv.Itoa(s.timeout)),
		text.Join(holderKeptEnv, "=", strconv.Itoa(len(s.kept))),
		text.Join(holderRunDirEnv, "=", s.runDir),
		"GOMAXPROCS=1", "GOGC=20", // it sleeps, and there is one for each program
	}, nil
}

// holderMain is the holder process. It returns its exit code when the program has ended.
func holderMain(attach string) int {
	hide()
	name := [16]byte{}
	copy(name[:15], holderName)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0, 0)
	ignoreSignals()
	packet, ok := fromHex(attach)
	timeout, err := strconv.Atoi(getenv(holderTimeoutEnv))
	count, keptErr := strconv.Atoi(getenv(holderKeptEnv))
	if !ok || err != nil || keptErr != nil || count > wire.MaxKept {
		return exitFailed
	}
	var kept []int
	for i := range count {
		syscall.CloseOnExec(holderKept + i)
		kept = append(kept, holderKept+i)
	}
	h, err := newHolder(getenv(holderRunDirEnv), packet, timeout, holderListener, holderJournal, kept)
	if err != nil {
		return exitFailed
	}
	if err := h.run(); err != nil {
		return exitFailed
	}
	return 0
}

// holder serves one program.
type holder struct {
	path     string // of the agent's socket
	attach   []byte // the packet to send to every agent
	timeout  time.Duration
	listener int
	memory   int         // the journal's descriptor
	kept     []int       // what the last agent gave us to keep for the next one
	ring     *uring.Ring // where an agent has the connections that it is about to deliver; nil if there can be none
	journal  journal

	conn     int       // -1: no connection
	attached bool      // the agent on conn serves the calls
	lost     time.Time // when there last was an agent
	retry    time.Time // next attempt to connect
	pause    time.Duration
	buffer   []byte

	answering atomic.Bool // calls get ENETDOWN
	start     sync.Once   // of the thread that answers
	wake      chan struct{}
}

func newHolder(runDir string, attach []byte, timeout, listener, memory int, kept []int) (*holder, error) {
	j, err := mapJournal(memory)
	if err != nil {
		return nil, err
	}
	ring, attach := newRing(attach)
	return &holder{
		path:     text.Join(runDir, "/", wire.SocketName),
		attach:   attach,
		ring:     ring,
		kept:     kept,
		timeout:  time.Duration(max(timeout, minimumTimeout)) * time.Millisecond,
		listener: listener, memory: memory, journal: j,
		conn: -1, lost: time.Now(), pause: retryFirst,
		wake: make(chan struct{}, 1),
	}, nil
}

// newRing makes the ring, if this machine allows it, and says so in the packet.
func newRing(attach []byte) (*uring.Ring, []byte) {
	m, err := wire.Unmarshal(attach)
	if err != nil || m.Attach == nil {
		return nil, attach
	}
	ring, errno := uring.New(1, wire.VaultPlaces)
	if errno != 0 {
		return nil, attach
	}
	m.Attach.Ring = ring.FD()
	packet, err := m.Marshal()
	if err != nil {
		ring.Close()
		return nil, attach
	}
	return ring, packet
}

// empty sends what an agent has left in the ring into transit, for the next one.
func (h *holder) empty() {
	if h.ring == nil || len(h.kept) == 0 {
		return
	}
	files := h.ring.Take(wire.VaultPlaces)
	for _, fd := range files {
		_ = send(h.kept[0], []byte{0}, []int{fd}, syscall.MSG_DONTWAIT) // what doesn't fit is lost
	}
	closeAll(files)
}

// run polls until the program has ended.
func (h *holder) run() error {
	shrink()
	for {
		h.connect()
		fds := [2]pollFD{{fd: int32(h.listener)}, {fd: int32(h.conn), events: pollIn}}
		if err := poll(fds[:], h.patience()); err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		if fds[0].revents&(pollHup|pollErr|pollNval) != 0 {
			return nil
		}
		if h.conn >= 0 && fds[1].revents != 0 {
			h.hear()
		}
		if !h.attached && time.Since(h.lost) >= h.timeout {
			h.beginAnswering()
		}
	}
}

// patience is how long to sleep if nothing happens; negative is for ever.
func (h *holder) patience() time.Duration {
	if h.attached {
		return -1
	}
	wait := time.Duration(-1)
	if !h.answering.Load() {
		wait = max(0, h.timeout-time.Since(h.lost))
	}
	if h.conn < 0 {
		if d := max(0, time.Until(h.retry)); wait < 0 || d < wait {
			wait = d
		}
	}
	return wait
}

// connect makes an attempt to attach if there is no agent and it is time for one. It never blocks.
func (h *holder) connect() {
	if h.conn >= 0 || time.Now().Before(h.retry) {
		return
	}
	fd, err := dial(h.path, true)
	if err == nil {
		h.empty()
		show(fd)
		if err = send(fd, h.attach, append([]int{h.listener, h.memory}, h.kept...), syscall.MSG_DONTWAIT); err == nil {
			h.conn = fd
			return
		}
		hide()
		_ = syscall.Close(fd)
	}
	h.later()
}

func (h *holder) later() {
	h.retry = time.Now().Add(h.pause)
	h.pause = min(2*h.pause, retryMost)
}

// hear reads what the agent says: that it serves the calls, that it refuses, or nothing any more.
func (h *holder) hear() {
	if h.buffer == nil {
		h.buffer = make([]byte, wire.MaxMessage+1)
	}
	n, fds, err := receive(h.conn, h.buffer, syscall.MSG_DONTWAIT)
	if errors.Is(err, syscall.EAGAIN) {
		return
	}
	var m wire.Message
	if err == nil {
		m, err = wire.Unmarshal(h.buffer[:n])
	}
	if err == nil && m.Attached != nil && len(fds) > 0 {
		h.kept, fds = fds, h.kept
	}
	closeAll(fds)
	if err == nil && m.Error != nil {
		err = m.Error
	}
	if err != nil {
		h.lose()
		return
	}
	if m.Attached != nil {
		hide()
		h.attached = true
		h.pause = retryFirst
		h.answering.Store(false)
		shrink()
	}
}

// lose drops the connection. An agent that refuses or is not understood counts as none.
func (h *holder) lose() {
	hide()
	_ = syscall.Close(h.conn)
	h.conn = -1
	if h.attached {
		h.attached = false
		h.lost = time.Now()
	}
	h.later()
}

// beginAnswering gives up on waiting.
func (h *holder) beginAnswering() {
	if h.answering.Load() {
		return
	}
	h.answering.Store(true)
	h.start.Do(func() { go h.answer() })
	select {
	case h.wake <- struct{}{}:
	default: // it is awake
	}
}

// answerPoll bounds how long the answering thread sleeps before it looks whether an agent has come back.
const answerPoll = 50 * time.Millisecond

// answer is the thread that answers calls with ENETDOWN while there is no agent: first those that the last agent
// left behind, then new ones. Receiving can block, if a call is interrupted between poll and receive; that holds up
// nothing but this thread.
func (h *holder) answer() {
	for range h.wake {
		h.journal.take(h.refuse)
		for h.answering.Load() {
			fds := [1]pollFD{{fd: int32(h.listener), events: pollIn}}
			if err := poll(fds[:], answerPoll); err != nil && !errors.Is(err, syscall.EINTR) {
				time.Sleep(answerPoll)
			}
			if fds[0].revents&pollIn == 0 || !h.answering.Load() {
				continue
			}
			var notification [notificationSize]byte
			if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(h.listener), seccompIoctlRecv,
				uintptr(unsafe.Pointer(&notification))); errno == 0 {
				h.refuse(*(*uint64)(unsafe.Pointer(&notification)))
			}
		}
	}
}

// refuse answers a call with ENETDOWN. A call that has been interrupted, or answered, is none any more.
func (h *holder) refuse(id uint64) {
	response := struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}{id: id, error: -int32(syscall.ENETDOWN)}
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(h.listener), seccompIoctlSend, uintptr(unsafe.Pointer(&response)))
}
