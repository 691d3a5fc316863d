package vault

import (
	"sync"
	"syscall"

	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/launch/uring"
	"golang.org/x/sys/unix"
)

// supported tries once whether this kernel does what acceptByRing takes, on a listening socket to which nobody connects:
// an older kernel knows no accept without waiting (Linux 6.10), or no io_uring at all, or it is forbidden.
var supported = sync.OnceValue(func() bool {
	safe, errno := uring.New(1, 1)
	if errno != 0 {
		return false
	}
	defer safe.Close()
	ours, errno := uring.New(len(Vault{}.ops), 1)
	if errno != 0 {
		return false
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer sys.Close(listener)
	if unix.Bind(listener, &unix.SockaddrUnix{}) != nil || unix.Listen(listener, 1) != nil {
		return false
	}
	v := Vault{ring: ours, safe: safe.FD(), free: []uint32{0}}
	defer ours.Close()
	_, errno = v.acceptByRing(listener, 0)
	return errno == syscall.EAGAIN
})
