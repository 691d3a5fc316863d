package launch

import (
	"syscall"
	"unsafe"
)

const signals = 64 // SIGRTMAX

// kernelAction is the kernel's struct sigaction, which is not that of the C library.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigDefault = 0
	sigIgnore  = 1
)

// setIgnored has a signal ignored by the whole process.
func setIgnored(n int) {
	action := kernelAction{handler: sigIgnore}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}

// ignoreSignals keeps a holder alive when all processes of a service or a session are told to end: it ends after the
// program anyway. The signals that Go's runtime needs for itself, and that tell of faults, stay.
func ignoreSignals() {
	for n := 1; n <= signals; n++ {
		switch syscall.Signal(n) {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGURG, syscall.SIGPROF, 32, 33,
			syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS:
		default:
			setIgnored(n)
		}
	}
}

// inheritedSignals returns what the runtime found when the process started, if this build can tell: which signals
// were ignored (bit n-1 for signal n), and which were blocked.
var inheritedSignals func() (ignored, blocked uint64)

// restoreSignals undoes what the Go runtime did to the signals: it takes over nearly all that were ignored, and
// unblocks those that end a process.
func restoreSignals() {
	if inheritedSignals == nil {
		return
	}
	ignored, blocked := inheritedSignals()
	for n := 1; n <= signals; n++ {
		if ignored&(1<<(n-1)) != 0 {
			setIgnored(n)
		}
	}
	_ = setSignalMask(&blocked, nil) // can only fail for a bad address
}
