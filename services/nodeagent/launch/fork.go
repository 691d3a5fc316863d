package launch

import (
	"syscall"
	"time"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/wire"
)

// Descriptors of a holder when it starts; all others are closed.
const (
	holderListener = 3
	holderJournal  = 4
	holderKept     = 5  // and up
	firstSpare     = 10 // where their originals are moved, out of the way of the copies
)

// holderExec is everything that the child processes need, prepared before the fork: they must not allocate.
type holderExec struct {
	exe, root, null   *byte
	argv, envp        **byte
	listener, journal uintptr
	kept              [wire.MaxKept]uintptr
	keptCount         int
	watch             pollFD // of the holder's copy of the listener
	delay             syscall.Timespec
}

// holderDelay is how long a program runs before its holder starts in earnest. Until then the forked process keeps the
// descriptors, which is all that must never be interrupted; the Go runtime's start would compete with the program's
// own for the processors, and many programs have ended by then.
const holderDelay = 50 * time.Millisecond

// forkHolder starts a holder with copies of the listener and the journal. The holder is no child of this process,
// whose program would be surprised by one: a process in between ends at once.
//
// The caller's thread must be locked, and neither filtered nor in the program's namespaces.
func forkHolder(state holderState, listener, journal int) error {
	h, err := prepareHolder(state, listener, journal)
	if err != nil {
		return text.Wrap(err, "start the holder process")
	}
	defer h.close()

	// With every signal blocked no handler of the Go runtime runs in the children; the holder stays like that, so
	// that what is sent to the program's session, group or cgroup doesn't end it before the program.
	all, old := ^uint64(0), uint64(0)
	if errno := setSignalMask(&all, &old); errno != 0 {
		return text.Wrap(errno, "start the holder process: block signals")
	}
	pid, errno := doubleFork(h)
	var status uint32
	var waitErr syscall.Errno
	if errno == 0 {
		waitErr = waitClone(pid, &status)
	}
	if e := setSignalMask(&old, nil); errno == 0 {
		errno = e
	}
	switch {
	case errno != 0:
		return text.Wrap(errno, "start the holder process")
	case waitErr != 0:
		return text.Wrap(waitErr, "start the holder process: wait")
	case status != 0:
		return text.Wrap(syscall.Errno(status>>8&0xff), "start the holder process: fork")
	}
	return nil
}

func prepareHolder(state holderState, listener, journal int) (*holderExec, error) {
	env, err := state.environ()
	if err != nil {
		return nil, err
	}
	argv, err := syscall.SlicePtrFromStrings([]string{holderName, state.attach.AppID})
	if err != nil {
		return nil, err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return nil, err
	}
	h := &holderExec{
		argv: &argv[0], envp: &envp[0],
		watch: pollFD{fd: holderListener}, delay: syscall.NsecToTimespec(holderDelay.Nanoseconds()),
	}
	for _, p := range []struct {
		to   **byte
		path string
	}{{&h.exe, selfExe}, {&h.root, "/"}, {&h.null, "/dev/null"}} {
		if *p.to, err = syscall.BytePtrFromString(p.path); err != nil {
			return nil, err
		}
	}
	if h.listener, err = moveUp(listener); err != nil {
		return nil, err
	}
	if h.journal, err = moveUp(journal); err != nil {
		_ = syscall.Close(int(h.listener))
		return nil, err
	}
	for _, fd := range state.kept {
		if h.kept[h.keptCount], err = moveUp(fd); err != nil {
			h.close()
			return nil, err
		}
		h.keptCount++
	}
	return h, nil
}

// close closes the copies.
func (h *holderExec) close() {
	closeAll([]int{int(h.listener), int(h.journal)})
	for _, fd := range h.kept[:h.keptCount] {
		_ = syscall.Close(int(fd))
	}
}

const selfExe = "/proc/self/exe"

// moveUp duplicates a descriptor to a high number.
func moveUp(fd int) (uintptr, error) {
	up, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, firstSpare)
	if errno != 0 {
		return 0, errno
	}
	return up, nil
}

func setSignalMask(set, old *uint64) syscall.Errno {
	const setMask, size = 2, 8
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask,
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), size, 0, 0)
	return errno
}

// waitClone reaps a child that sends no signal when it ends.
func waitClone(pid uintptr, status *uint32) syscall.Errno {
	const wclone = 0x80000000
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, pid, uintptr(unsafe.Pointer(status)), wclone, 0, 0, 0)
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// doubleFork forks, and the child forks again and exits with the second fork's errno; the grandchild becomes the
// holder. In the children there is one thread and a copy of the Go heap: system calls only, no stack growth.
//
//go:norace
//go:nosplit
func doubleFork(h *holderExec) (pid uintptr, errno syscall.Errno) {
	// No exit signal: an ignored SIGCHLD would make the kernel reap it, and a handler would run.
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		for {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
		}
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(h.root)), 0, 0)
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, openCwd, uintptr(unsafe.Pointer(h.null)), syscall.O_RDWR, 0, 0, 0)
	if errno == 0 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, fd, 0, 0) // fails harmlessly where fd is the same
		_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, fd, 1, 0)
		_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, fd, 2, 0)
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, h.listener, holderListener, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, h.journal, holderJournal, 0)
	for i := 0; i < h.keptCount; i++ {
		_, _, _ = syscall.RawSyscall(syscall.SYS_DUP3, h.kept[i], holderKept+uintptr(i), 0)
	}
	_, _, _ = syscall.RawSyscall(sysCloseRange, holderKept+uintptr(h.keptCount), ^uintptr(0)>>32, 0)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetDumpable, 0, 0, 0, 0, 0)
	ended, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&h.watch)), 1,
		uintptr(unsafe.Pointer(&h.delay)), 0, 0, 0)
	for errno == 0 && ended == 1 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(h.exe)),
		uintptr(unsafe.Pointer(h.argv)), uintptr(unsafe.Pointer(h.envp)))
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, exitFailed, 0, 0)
	}
}

// openCwd is AT_FDCWD as a system call argument.
const openCwd = ^uintptr(0x63)
