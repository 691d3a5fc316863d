package launch

import (
	"syscall"
	"time"
	"unsafe"
)

// pollFD is struct pollfd. A negative descriptor is ignored by the kernel.
type pollFD struct {
	fd      int32
	events  int16
	revents int16
}

const (
	pollIn   = 0x1
	pollErr  = 0x8
	pollHup  = 0x10
	pollNval = 0x20
)

// poll waits for an event, at most for the given time; negative is for ever.
func poll(fds []pollFD, wait time.Duration) error {
	var timeout *syscall.Timespec
	if wait >= 0 {
		t := syscall.NsecToTimespec(wait.Nanoseconds())
		timeout = &t
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
