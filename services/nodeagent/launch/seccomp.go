package launch

import (
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/filter"
	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/restrict"
)

// linux/seccomp.h and linux/prctl.h
const (
	seccompSetModeFilter     = 1
	seccompFlagNewListener   = 1 << 3
	seccompIoctlRecv         = 0xc0502100
	seccompIoctlSend         = 0xc0182101
	prSetNoNewPrivs          = 38
	prSetDumpable            = 4
	prSetName                = 15
	prSetChildSubreaper      = 36
	prCapAmbient             = 47
	prSetPtracer             = 0x59616d61 // "Yama"
	prCapAmbientClearAll     = 4
	maxFilterInstructions    = 4096
	notificationSize         = 80 // struct seccomp_notif
	notificationResponseSize = 24 // struct seccomp_notif_resp
)

// installFilter puts the calling thread, and with it the program that it is going to be, under the filter, and
// returns the descriptor through which its calls are answered. From here on this thread must not make a call that
// the filter notifies, or it waits for an agent that doesn't know of it yet.
//
// The flags that are absent are absent on purpose: TSYNC would filter the threads that talk to the agent, and
// WAIT_KILLABLE_RECV leaves a blocking accept or connect unkillable when a handled signal is pending.
func installFilter(udpFrom int) (int, error) {
	program, err := filter.Program(runtime.GOARCH, uint32(udpFrom))
	if err != nil {
		return -1, err
	}
	if len(program) > maxFilterInstructions {
		return -1, text.Error("system call filter of ", strconv.Itoa(len(program)), " instructions: the kernel takes ", strconv.Itoa(maxFilterInstructions))
	}
	fprog := struct {
		n    uint16
		code *filter.Instruction
	}{uint16(len(program)), &program[0]}
	install := func() (int, syscall.Errno) {
		fd, _, errno := syscall.RawSyscall(sysSeccomp, seccompSetModeFilter, seccompFlagNewListener,
			uintptr(unsafe.Pointer(&fprog)))
		return int(fd), errno
	}
	fd, errno := install()
	if errno == syscall.EACCES { // without CAP_SYS_ADMIN a filter demands that no privilege is ever gained
		if _, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			return -1, text.Wrap(errno, "give up gaining privileges (PR_SET_NO_NEW_PRIVS)")
		}
		fd, errno = install()
	}
	runtime.KeepAlive(program)
	switch errno {
	case 0:
		return fd, nil
	case syscall.EBUSY:
		return -1, text.Error("this process is already under a seccomp listener, and the kernel allows one: " +
			"either it was started by `ax run` (leave the inner `ax run` out), or the container runtime installed one")
	case syscall.ENOSYS, syscall.EINVAL:
		if f := restrict.Seccomp(facts()); f.Severity != restrict.Fine {
			return -1, text.Because(errno, "install the system call filter: ", f.Sentence())
		}
	}
	return -1, text.Wrap(errno, "install the system call filter")
}
