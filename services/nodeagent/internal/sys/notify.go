package sys

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl numbers of a seccomp listener; see seccomp_unotify(2) and include/uapi/linux/seccomp.h.
const (
	ioctlRecv     = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlIDValid  = 0x40082102
	ioctlAddfd    = 0x40182103
	ioctlSetFlags = 0x40082104

	addfdSetFD     = 1 // SECCOMP_ADDFD_FLAG_SETFD
	flagContinue   = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	fdSyncWakeUp   = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6
	notifSize      = 80
	NotifySlotSize = notifSize // bytes that Receive needs
)

// Notify is one intercepted system call: struct seccomp_notif.
type Notify struct {
	ID    uint64
	TID   uint32 // thread id in the agent's process-id namespace; 0 if it is not visible there
	Flags uint32
	NR    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

type resp struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

type addfd struct {
	id                            uint64
	flags, srcfd, newfd, newfdFlg uint32
}

// Receive takes the next notification straight into slot, which must be zeroed and NotifySlotSize bytes long, and waits
// for one. ENOENT: the call was cancelled meanwhile, or, since Linux 6.11, no process is left that could make one; before,
// it waits on in that case, so call it after POLLIN only ([ReceiveEnds]). EINTR: see [Interrupt].
func Receive(listener int, slot unsafe.Pointer) syscall.Errno {
	_, _, e := syscall.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlRecv, uintptr(slot))
	return e
}

// ReceiveEnds reports whether Receive returns when the last process under the filter is gone.
var ReceiveEnds = sync.OnceValue(func() bool { return kernelAtLeast(6, 11) })

// Reply answers a call with a value, or with an error if errno is not 0. ENOENT: the call was cancelled.
func Reply(listener int, id uint64, val int64, errno syscall.Errno) syscall.Errno {
	return ioctl(listener, ioctlSend, unsafe.Pointer(&resp{id: id, val: val, error: -int32(errno)}))
}

// Continue lets the kernel carry out the call as it was made.
func Continue(listener int, id uint64) syscall.Errno {
	return ioctl(listener, ioctlSend, unsafe.Pointer(&resp{id: id, flags: flagContinue}))
}

// Valid reports whether the caller still waits in the call.
func Valid(listener int, id uint64) bool {
	return ioctl(listener, ioctlIDValid, unsafe.Pointer(&id)) == 0
}

// Inject installs a copy of fd into the caller at its lowest free descriptor and returns that number; the call still
// waits. EMFILE: the caller's RLIMIT_NOFILE is reached. ENOENT: the call was cancelled.
//
// SECCOMP_ADDFD_FLAG_SEND would answer the call in the same step, but the kernel marks the call as answered before the
// caller has taken the descriptor (seccomp_notify_addfd in kernel/seccomp.c): if the agent is killed in between, the
// caller's system call returns 0, with no descriptor behind it.
func Inject(listener int, id uint64, fd int, cloexec bool) (int, syscall.Errno) {
	return inject(listener, addfd{id: id, srcfd: uint32(fd)}, cloexec)
}

// InjectAt is Inject with the number given: what is open there is closed, as by dup2. EBADF: it is beyond the caller's
// RLIMIT_NOFILE.
func InjectAt(listener int, id uint64, fd, number int, cloexec bool) (int, syscall.Errno) {
	return inject(listener, addfd{id: id, flags: addfdSetFD, srcfd: uint32(fd), newfd: uint32(number)}, cloexec)
}

func inject(listener int, a addfd, cloexec bool) (int, syscall.Errno) {
	if cloexec {
		a.newfdFlg = unix.O_CLOEXEC
	}
	for {
		n, _, e := syscall.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlAddfd, uintptr(unsafe.Pointer(&a)))
		if e != syscall.EINTR { // interrupted, it has not installed anything
			return int(n), e
		}
	}
}

// SyncWakeUp asks the kernel to switch directly between caller and agent; kernels before 6.6 can't, which is no error.
func SyncWakeUp(listener int) {
	_, _, _ = syscall.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlSetFlags, fdSyncWakeUp)
}

func ioctl(fd int, req uintptr, p unsafe.Pointer) syscall.Errno {
	for {
		_, _, e := syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(p))
		if e != syscall.EINTR {
			return e
		}
	}
}
