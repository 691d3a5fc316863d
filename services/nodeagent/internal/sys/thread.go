package sys

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interruptSignal makes Receive return. It is the last real-time signal: nobody else is known to use it.
const interruptSignal = 64

// BlockSignals blocks every signal but the one of [Interrupt] for the calling thread, which the caller has locked and
// will never unlock, and returns the thread's id. The runtime's preemption signal would otherwise interrupt Inject.
func BlockSignals() (tid int, err error) {
	if err := interruptible(); err != nil {
		return 0, err
	}
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	all.Val[(interruptSignal-1)/64] &^= 1 << ((interruptSignal - 1) % 64)
	return unix.Gettid(), unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)
}

// Interrupt ends a system call in which a thread waits that has called BlockSignals. One that is about to wait is not
// ended: repeat it until the thread has noticed.
func Interrupt(tid int) { _ = unix.Tgkill(unix.Getpid(), tid, interruptSignal) }

// sigaction is struct sigaction of the kernel on amd64 and arm64.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const saRestart = 0x10000000

// interruptible takes SA_RESTART, with which a system call would go on waiting, off the runtime's handler of
// interruptSignal. The handler itself does nothing.
var interruptible = sync.OnceValue(func() error {
	var a sigaction
	if e := rtSigaction(nil, &a); e != 0 {
		return e
	}
	a.flags &^= saRestart
	if e := rtSigaction(&a, nil); e != 0 {
		return e
	}
	return nil
})

func rtSigaction(set, old *sigaction) syscall.Errno {
	_, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, interruptSignal, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(set.mask), 0, 0)
	return e
}

// kernelAtLeast compares with the version of the running kernel.
func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	v := [2]int{}
	i := 0
	for _, c := range u.Release {
		if c == '.' {
			if i++; i == len(v) {
				break
			}
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		v[i] = v[i]*10 + int(c-'0')
	}
	return v[0] > major || v[0] == major && v[1] >= minor
}
