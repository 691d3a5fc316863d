package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Syscall is a system call in which a thread sleeps.
type Syscall struct {
	NR   int32
	Args [6]uint64
	// Notified says that it sleeps because seccomp has notified a supervisor; also where the kernel doesn't tell.
	Notified bool
}

// notifiedAt is the kernel's function that waits for a supervisor's answer.
const notifiedAt = "seccomp_do_user_notification"

// ErrRunning says that a thread is in no system call, or does not sleep in it at the moment.
var ErrRunning = errors.New("thread does not sleep in a system call")

// SyscallOf tells in which call a thread sleeps, as the kernel knows it. It takes the same permission as reading the
// thread's memory.
func SyscallOf(tid int) (Syscall, error) {
	dir := "/proc/" + strconv.Itoa(tid)
	b, err := os.ReadFile(dir + "/syscall")
	if err != nil {
		return Syscall{}, fmt.Errorf("system call of thread %d: %w", tid, err)
	}
	s, err := parseSyscall(b)
	if err != nil {
		return Syscall{}, fmt.Errorf("system call of thread %d: %w", tid, err)
	}
	s.Notified = notified(dir + "/wchan")
	return s, nil
}

// notified reads where in the kernel a thread sleeps. "0" is a kernel that doesn't tell; compilers append to the names of
// functions that they have changed.
func notified(wchan string) bool {
	at, err := os.ReadFile(wchan)
	return err != nil || string(at) == "0" || bytes.HasPrefix(at, []byte(notifiedAt))
}

// parseSyscall reads proc_pid_syscall(5).
func parseSyscall(b []byte) (s Syscall, err error) {
	fields := bytes.Fields(b)
	if len(fields) == 0 || string(fields[0]) == "running" || string(fields[0]) == "-1" {
		return s, ErrRunning
	}
	nr, err := strconv.ParseInt(string(fields[0]), 10, 32)
	if err != nil || len(fields) < 1+len(s.Args) {
		return s, fmt.Errorf("not a system call: %.100q", b)
	}
	s.NR = int32(nr)
	for i := range s.Args {
		if s.Args[i], err = strconv.ParseUint(string(fields[1+i]), 0, 64); err != nil {
			return Syscall{}, fmt.Errorf("not a system call: %.100q", b)
		}
	}
	return s, nil
}
