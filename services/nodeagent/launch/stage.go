package launch

import (
	"errors"
	"strconv"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/options"
	"appswitch.io/services/nodeagent/launch/wire"
)

// stageFirstFD is the lowest number for the child's socket to its supervisor.
const stageFirstFD = 200

// codeNeedsUserNamespace is what the child says when it should have been started in a user namespace.
const codeNeedsUserNamespace = "needs-user-namespace"

// stageArgs tells the child which descriptor is its socket, and whether it is in a user namespace for the launch's
// sake.
func stageArgs(fd int, userNamespace bool) []string {
	return []string{stageName, strconv.Itoa(fd), strconv.FormatBool(userNamespace)}
}

// stage is the child of a supervisor: it becomes the program, with the supervisor in the agent's place.
func stage(args []string) error {
	if len(args) < 2 {
		return text.Error(stageName, " is started by `ax run` only")
	}
	fd, err := strconv.Atoi(args[0])
	userNamespace, boolErr := strconv.ParseBool(args[1])
	if err != nil || boolErr != nil || fd < stageFirstFD {
		return text.Error(stageName, " is started by `ax run` only")
	}
	syscall.CloseOnExec(fd)
	o, err := options.Parse(args[2:], setting, isProgram)
	if err != nil {
		return err
	}
	program, err := findProgram(o.Command[0])
	if err != nil {
		return err
	}
	who, err := findUser(o.User)
	if err != nil {
		return err
	}
	l := &link{fd: fd, userNamespace: userNamespace}
	err = become(o, program, who, l)
	if errors.Is(err, errNeedsUserNamespace) {
		if err = l.say(wire.Message{Error: &wire.Error{Code: codeNeedsUserNamespace}}, nil); err == nil {
			syscall.Exit(exitFailed) // the supervisor says what is to be said
		}
	}
	return err
}

// link is the backend that leaves the agent to the supervisor.
type link struct {
	fd            int
	userNamespace bool
}

func (l *link) plan() (*wire.Welcome, error) {
	m, err := l.hear()
	if err == nil && m.Welcome == nil {
		err = text.Error("the supervisor sent something unexpected")
	}
	return m.Welcome, err
}

func (l *link) attach(h handed) error {
	at := &wire.Attach{Version: wire.Version, Hello: wire.Hello{NewNetns: h.newNetns, UDPFrom: h.udpFrom}}
	if err := l.say(wire.Message{Attach: at}, []int{h.listener, h.journal}); err != nil {
		return err
	}
	m, err := l.hear()
	if err == nil && m.Attached == nil {
		err = text.Error("the supervisor sent something unexpected")
	}
	return err
}

// relinquish drops the capabilities that the supervisor lent for the launch: they would survive the exec.
func (l *link) relinquish() error {
	if !l.userNamespace {
		return nil
	}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, prCapAmbientClearAll, 0, 0, 0, 0); errno != 0 {
		return text.Wrap(errno, "give up the capabilities of the launch")
	}
	// Those that may be inherited as well: natively there are none.
	header := [2]uint32{linuxCapabilityVersion3, 0}
	var none [6]uint32 // effective, permitted, inheritable, in two halves
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header[0])), uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 {
		return text.Wrap(errno, "give up the capabilities of the launch")
	}
	return nil
}

const linuxCapabilityVersion3 = 0x20080522

func (l *link) close() { _ = syscall.Close(l.fd) }

func (l *link) say(m wire.Message, fds []int) error {
	packet, err := m.Marshal()
	if err != nil {
		return err
	}
	if err := send(l.fd, packet, fds, 0); err != nil {
		return text.Wrap(err, "talk to the supervising process")
	}
	return nil
}

func (l *link) hear() (wire.Message, error) {
	buffer := make([]byte, wire.MaxMessage+1)
	n, fds, err := receive(l.fd, buffer, 0)
	closeAll(fds)
	if err != nil {
		return wire.Message{}, text.Wrap(err, "talk to the supervising process")
	}
	return wire.Unmarshal(buffer[:n])
}
