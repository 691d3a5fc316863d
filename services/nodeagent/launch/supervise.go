package launch

import (
	"errors"
	"syscall"
	"time"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/restrict"
	"appswitch.io/services/nodeagent/launch/wire"
)

// Supervision is a launch that leaves a parent behind: for --init, and where the new network namespace takes a user
// namespace, which only a new process can enter. The parent speaks to the agent, because it is who the agent should
// judge, becomes the holder, forwards signals, reaps, and ends as the program ends. Its child, in stage.go, is what
// turns into the program.
type Supervision struct {
	args          []string // what followed `ax run`
	direct        *direct
	userNamespace bool
	init          bool // --init: the parent was asked for

	child   int
	ownTTY  bool // the child's process group is the terminal's foreground
	holder  *holder
	handed  handed
	state   holderState
	program bool // the child has become the program
	killed  syscall.Signal
}

// Forwarded lists the signals that the parent passes on. It keeps SIGCHLD, and those that a terminal sends to
// background processes.
var Forwarded = []syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGIO, syscall.SIGPWR, syscall.SIGWINCH,
}

// Capabilities that the child needs in its user namespace, and gives up before it becomes the program.
const (
	capNetAdmin = 12
	capSysAdmin = 21
)

const terminal = 0 // the descriptor whose terminal, if it is one, belongs to the program

// Run starts the program and stays until it has ended; the result is the exit code. Signals to forward come on the
// channel.
func (s *Supervision) Run(signals <-chan syscall.Signal) int {
	if syscall.Getpid() != 1 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0, 0, 0, 0)
	}
	code, err := s.launch()
	for errors.Is(err, errNeedsUserNamespace) && !s.userNamespace {
		s.userNamespace = true
		code, err = s.launch()
	}
	if err != nil {
		if errors.Is(err, errNeedsUserNamespace) {
			err = s.noUserNamespace(err)
		}
		return report(err)
	}
	if !s.program {
		return code
	}
	hide() // not before: a user namespace's maps are written through /proc
	ended := make(chan struct{})
	go func() {
		_ = s.holder.run()
		close(ended)
	}()
	go s.forward(signals)
	code = s.reap()
	select {
	case <-ended:
	case <-time.After(holderGrace):
		s.leaveHolder()
	}
	if s.killed != 0 && !s.init {
		die(s.killed)
	}
	return code
}

// die ends this process by a signal, as the program has ended: nobody asked for a parent, so nobody should see one. It returns
// if that can't be, as for process 1 of a container. The process is hidden by now, so it leaves no core.
func die(n syscall.Signal) {
	action := kernelAction{handler: sigDefault}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if syscall.Kill(syscall.Getpid(), n) == nil {
		time.Sleep(deathGrace) // it may be another thread that takes the signal
	}
}

const deathGrace = 100 * time.Millisecond

// holderGrace is how long after the program's end its last descendants may take to go.
const holderGrace = 5 * time.Millisecond

// facts gathers what this machine restricts.
func facts() restrict.Facts {
	return restrict.Gather("/proc", func(path string) string {
		content, err := readFile(path)
		if err != nil {
			return ""
		}
		return string(content)
	})
}

func (s *Supervision) noUserNamespace(err error) error {
	return text.Because(err, "make a network namespace: ", restrict.UserNamespace(facts()).Sentence())
}

// launch starts the child and brings it to where it becomes the program. If the child ends before, it has said why,
// and the result is its exit code.
func (s *Supervision) launch() (int, error) {
	if s.direct.welcome == nil {
		if _, err := s.direct.plan(); err != nil {
			return 0, err
		}
	}
	link, err := s.start()
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Close(link) }()
	welcome := *s.direct.welcome
	welcome.Token = "" // not the program's business
	packet, err := wire.Message{Welcome: &welcome}.Marshal()
	if err != nil {
		return 0, err
	}
	if err := send(link, packet, nil, 0); err != nil {
		return s.reap(), nil
	}
	if err := s.takeOver(link); err != nil {
		if errors.Is(err, errClosed) {
			return s.reap(), nil
		}
		_ = syscall.Kill(s.child, syscall.SIGKILL)
		s.reap()
		return 0, err
	}
	if packet, err = (wire.Message{Attached: &wire.Attached{Version: wire.Version}}).Marshal(); err != nil {
		return 0, err
	}
	s.program = true
	if err := send(link, packet, nil, 0); err != nil {
		return s.reap(), nil // killed meanwhile
	}
	s.direct.close()
	return 0, nil
}

// takeOver receives the listener and the journal from the child and hands them on to the agent.
func (s *Supervision) takeOver(link int) error {
	buffer := make([]byte, wire.MaxMessage+1)
	n, fds, err := receive(link, buffer, 0)
	if err != nil {
		return errClosed
	}
	m, err := wire.Unmarshal(buffer[:n])
	switch {
	case err != nil:
		closeAll(fds)
		return err
	case m.Error != nil && m.Error.Code == codeNeedsUserNamespace:
		return errNeedsUserNamespace
	case m.Attach == nil || len(fds) != wire.HandedFDs:
		closeAll(fds)
		return text.Error("the child process sent something unexpected")
	}
	s.handed = handed{listener: fds[0], journal: fds[1], newNetns: m.Attach.Hello.NewNetns, udpFrom: m.Attach.Hello.UDPFrom}
	if s.state, err = s.direct.register(s.handed, s.child); err != nil {
		return err
	}
	at := s.state.attach
	at.Holder = true
	packet, err := wire.Message{Attach: &at}.Marshal()
	if err != nil {
		return err
	}
	s.holder, err = newHolder(s.state.runDir, packet, s.state.timeout, fds[0], fds[1], s.state.kept)
	return err
}

// start forks the child, in a process group of its own as a shell would, and returns the socket to it.
func (s *Supervision) start() (int, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, text.Wrap(err, "make a socket pair")
	}
	defer func() { _ = syscall.Close(pair[1]) }()
	// The child inherits it under a number that the program's own descriptors are unlikely to have.
	up, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(pair[1]), syscall.F_DUPFD, stageFirstFD)
	if errno != 0 {
		_ = syscall.Close(pair[0])
		return -1, text.Wrap(errno, "duplicate a socket")
	}
	defer func() { _ = syscall.Close(int(up)) }()
	s.ownTTY = foreground() == syscall.Getpgrp()
	sys := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Foreground: s.ownTTY, Ctty: terminal}
	if s.userNamespace {
		uid, gid := syscall.Geteuid(), syscall.Getegid()
		sys.Cloneflags = syscall.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		sys.AmbientCaps = []uintptr{capSysAdmin, capNetAdmin}
	}
	argv := append(stageArgs(int(up), s.userNamespace), s.args...)
	s.child, err = syscall.ForkExec(selfExe, argv, &syscall.ProcAttr{
		Env: syscall.Environ(), Files: []uintptr{0, 1, 2}, Sys: sys,
	})
	if err != nil {
		_ = syscall.Close(pair[0])
		if s.userNamespace {
			return -1, s.noUserNamespace(err)
		}
		return -1, text.Wrap(err, "start the child process")
	}
	return pair[0], nil
}

// foreground returns the terminal's foreground process group, or -1 if there is no terminal.
func foreground() int {
	var group int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal, syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group))); errno != 0 {
		return -1
	}
	return int(group)
}

// forward passes signals on until the process ends.
func (s *Supervision) forward(signals <-chan syscall.Signal) {
	for n := range signals {
		_ = syscall.Kill(s.child, n) // it may have ended: then so does this process
	}
}

// reap waits for the child, and for whatever orphans come its way, and returns the exit code. When the child is
// stopped from the terminal, this process stops, too, so that the shell notices, and both go on together.
func (s *Supervision) reap() int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return exitFailed
		}
		if pid != s.child {
			continue
		}
		switch {
		case status.Exited():
			return status.ExitStatus()
		case status.Signaled():
			s.killed = status.Signal()
			return exitSignal + int(status.Signal())
		case status.Stopped() && s.ownTTY:
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
			if foreground() == syscall.Getpgrp() { // fg, not bg
				group := int32(s.child)
				_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, terminal, syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&group)))
			}
			_ = syscall.Kill(-s.child, syscall.SIGCONT)
		}
	}
}

// leaveHolder forks a holder for descendants that outlive the program: a server that became a daemon.
func (s *Supervision) leaveHolder() {
	s.state.kept = s.holder.kept
	if err := forkHolder(s.state, s.handed.listener, s.handed.journal); err != nil {
		complain(err.Error())
	}
}
