package launch

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/wire"
)

// Waiting for the agent.
const (
	launchPatience = 30 * time.Second // in all, for an agent that is starting or restarting
	noticeAfter    = 2 * time.Second  // then the user is told what `ax run` waits for
	retryFirst     = 10 * time.Millisecond
	retryMost      = 200 * time.Millisecond
	maxCommand     = 4 << 10 // bytes of the command line in a Hello
)

// agent is the launcher's side of the conversation. Connections break when the agent restarts: every request is
// repeated until it is answered or patience ends.
type agent struct {
	dir      string
	fd       int // -1: not connected
	deadline time.Time
	notice   time.Time
	buffer   []byte
}

func newAgent(dir string) *agent {
	now := time.Now()
	return &agent{dir: dir, fd: -1, deadline: now.Add(launchPatience), notice: now.Add(noticeAfter)}
}

func (a *agent) path() string { return a.dir + "/" + wire.SocketName }

func (a *agent) close() {
	if a.fd >= 0 {
		_ = syscall.Close(a.fd)
		a.fd = -1
	}
}

// hello asks for an identity.
func (a *agent) hello(h *wire.Hello) (*wire.Welcome, error) {
	m, received, err := a.ask(wire.Message{Hello: h}, nil)
	closeAll(received)
	if err != nil {
		return nil, err
	}
	if m.Welcome == nil {
		return nil, text.Error("the agent at ", a.path(), " answered the greeting with something else: is it another version?")
	}
	return m.Welcome, nil
}

// attach hands over the listener and the journal.
func (a *agent) attach(at *wire.Attach, fds []int) (kept []int, err error) {
	m, kept, err := a.ask(wire.Message{Attach: at}, fds)
	if err != nil {
		return nil, err
	}
	if m.Attached == nil {
		closeAll(kept)
		return nil, text.Error("the agent at ", a.path(), " answered the attachment with something else: is it another version?")
	}
	if len(kept) > wire.MaxKept {
		closeAll(kept[wire.MaxKept:])
		kept = kept[:wire.MaxKept]
	}
	return kept, nil
}

// ask sends a request and returns the answer with its descriptors, connecting as often as it takes.
func (a *agent) ask(m wire.Message, fds []int) (wire.Message, []int, error) {
	packet, err := m.Marshal()
	if err != nil {
		return wire.Message{}, nil, err
	}
	pause := retryFirst
	for {
		answer, received, err := a.try(packet, fds)
		var refusal *wire.Error
		if err == nil && answer.Error != nil {
			a.close() // a refusal ends the connection
			refusal = answer.Error
			err = refusal
		}
		if err == nil {
			return answer, received, nil
		}
		closeAll(received)
		if !worthRetrying(err, refusal) {
			return answer, nil, err
		}
		now := time.Now()
		if now.After(a.deadline) {
			return answer, nil, text.Because(err, err.Error(), " (tried for ", launchPatience.String(), ")")
		}
		if now.After(a.notice) {
			complain("waiting for the AppSwitch agent at " + a.path() + ": " + err.Error())
			a.notice = a.deadline.Add(time.Hour)
		}
		time.Sleep(pause)
		pause = min(2*pause, retryMost)
	}
}

// errAway is an agent whose socket is there but that does not answer: it is being restarted.
var errAway = errors.New("the agent is not answering")

func away(why ...string) error {
	return text.Because(errAway, errAway.Error(), ": ", text.Join(why...))
}

func worthRetrying(err error, refusal *wire.Error) bool {
	if refusal != nil {
		return refusal.Code == wire.CodeUnavailable
	}
	return errors.Is(err, errAway)
}

// try makes one attempt.
func (a *agent) try(packet []byte, fds []int) (wire.Message, []int, error) {
	if a.fd < 0 {
		fd, err := dial(a.path(), false)
		if err != nil {
			return wire.Message{}, nil, a.explain(err)
		}
		a.fd = fd
		left := max(time.Until(a.deadline), time.Second)
		tv := syscall.NsecToTimeval(left.Nanoseconds())
		if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv); err != nil {
			return wire.Message{}, nil, text.Wrap(err, "set a timeout on the agent's socket")
		}
	}
	if err := send(a.fd, packet, fds, 0); err != nil {
		a.close()
		return wire.Message{}, nil, away(err.Error())
	}
	if a.buffer == nil {
		a.buffer = make([]byte, wire.MaxMessage+1)
	}
	n, received, err := receive(a.fd, a.buffer, 0)
	if err != nil {
		a.close()
		return wire.Message{}, nil, away(err.Error())
	}
	answer, err := wire.Unmarshal(a.buffer[:n])
	if err != nil {
		return answer, received, text.Wrap(err, "read the agent's answer at ", a.path())
	}
	return answer, received, nil
}

// explain says what a failed connect means.
func (a *agent) explain(err error) error {
	path := a.path()
	var errno syscall.Errno
	_ = errors.As(err, &errno) // of another kind: the last line
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		return text.Error("the AppSwitch daemon is not running here: ", path, " does not exist; start it with `ax daemon`, as root or as this user, "+
			"or name its directory with --run-dir or AX_RUN_DIR")
	case syscall.EACCES, syscall.EPERM:
		return text.Error("no permission to use the AppSwitch agent's socket ", path, " as uid ", strconv.Itoa(syscall.Getuid()))
	case syscall.ECONNREFUSED, syscall.EAGAIN, syscall.EINTR:
		return away("connect to ", path, ": ", err.Error(), "; if the daemon is not running, start it with `ax daemon`")
	case syscall.EINVAL, syscall.ENAMETOOLONG:
		return text.Error(path, " is too long for a socket's name (107 bytes): choose a shorter --run-dir")
	}
	return text.Wrap(err, "connect to the AppSwitch agent at ", path)
}

// dial connects to a packet socket.
func dial(path string, nonblock bool) (int, error) {
	kind := syscall.SOCK_SEQPACKET | syscall.SOCK_CLOEXEC
	if nonblock {
		kind |= syscall.SOCK_NONBLOCK
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, kind, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// send writes one packet with descriptors.
func send(fd int, packet []byte, fds []int, flags int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	for {
		err := syscall.Sendmsg(fd, packet, oob, nil, syscall.MSG_NOSIGNAL|flags)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

var errClosed = errors.New("connection closed")

// receive reads one packet and the descriptors that came with it, which belong to the caller then.
func receive(fd int, buffer []byte, flags int) (int, []int, error) {
	oob := make([]byte, syscall.CmsgSpace(4*wire.MaxFDs))
	for {
		n, oobn, rflags, _, err := syscall.Recvmsg(fd, buffer, oob, flags|syscall.MSG_CMSG_CLOEXEC)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		fds := descriptors(oob[:oobn])
		if n == 0 {
			closeAll(fds)
			return 0, nil, errClosed
		}
		if rflags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
			closeAll(fds)
			return 0, nil, text.Error("packet too long or with too many descriptors")
		}
		return n, fds, nil
	}
}

func descriptors(oob []byte) []int {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []int
	for i := range messages {
		if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

// cutCommand shortens a command line for people to what a Hello may hold.
func cutCommand(command []string) []string {
	size := 0
	for i, arg := range command {
		if size += len(arg) + 1; size > maxCommand {
			cut := append([]string(nil), command[:i]...)
			if i == 0 {
				return []string{command[0][:maxCommand]}
			}
			return cut
		}
	}
	return command
}
