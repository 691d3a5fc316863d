package check

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/restrict"
	"golang.org/x/sys/unix"
)

// From include/uapi/linux/seccomp.h, as far as golang.org/x/sys lacks it.
const (
	setModeFilter    = 1
	getActionAvail   = 2
	getNotifSizes    = 3
	flagNewListener  = 1 << 3
	retUserNotif     = 0x7fc00000
	retAllow         = 0x7fff0000
	ioctlAddfd       = 0x40182103
	addfdFlagSend    = 2
	bpfReturn        = unix.BPF_RET | unix.BPF_K
	notifSize        = 80
	notifRespSize    = 24
	upgradeKernelFix = "use Linux 5.14 or later, built with CONFIG_SECCOMP_FILTER"
)

// seccompAction asks for the action on which the user driver is built, and for the layout of its messages.
func (o Options) seccompAction() Result {
	const name = "seccomp notification"
	if f := restrict.Seccomp(o.facts()); f.Severity != restrict.Fine {
		return result(name, f, "")
	}
	action := uint32(retUserNotif)
	if _, _, e := syscall.Syscall(unix.SYS_SECCOMP, getActionAvail, 0, uintptr(unsafe.Pointer(&action))); e != 0 {
		return failed(name, upgradeKernelFix, "the kernel does not hand system calls to a process (seccomp user notification): %v", e)
	}
	var sizes struct{ notif, resp, data uint16 }
	if _, _, e := syscall.Syscall(unix.SYS_SECCOMP, getNotifSizes, 0, uintptr(unsafe.Pointer(&sizes))); e != 0 {
		return failed(name, upgradeKernelFix, "its message sizes can't be read: %v", e)
	}
	if sizes.notif != notifSize || sizes.resp != notifRespSize {
		return failed(name, "use a version of AppSwitch made for this kernel", "its messages have %d and %d bytes, expected %d and %d",
			sizes.notif, sizes.resp, notifSize, notifRespSize)
	}
	return ok(name, "available")
}

// seccompListener installs a filter that lets everything through, as `ax run` installs its own, and asks its listener
// for what the agent needs.
func seccompListener() []Result {
	const name, inject = "seccomp listener", "descriptor injection"
	var install, addfd error
	onThread(func() { install, addfd = tryListener() })
	switch {
	case errors.Is(install, unix.EBUSY):
		return []Result{failed(name, "run it outside: not under `ax run`, and without a notifying seccomp profile of the container",
			"another process already receives this process's system calls")}
	case errors.Is(install, unix.EACCES), errors.Is(install, unix.EPERM):
		return []Result{failed(name, "allow the seccomp system call: the seccomp profile of the container forbids it", "can't be installed: %v", install)}
	case install != nil:
		return []Result{failed(name, upgradeKernelFix, "can't be installed: %v", install)}
	case addfd != nil:
		return []Result{ok(name, "can be installed"), failed(inject, upgradeKernelFix, "the kernel can't give an application a socket in one step: %v", addfd)}
	}
	return []Result{ok(name, "can be installed"), ok(inject, "available")}
}

// tryListener must run on a thread that is thrown away: it can't be rid of the filter.
func tryListener() (install, addfd error) {
	// Root may install a filter without it; everyone else must give up on gaining privileges, this thread only.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err, nil
	}
	filter := unix.SockFilter{Code: bpfReturn, K: retAllow}
	prog := unix.SockFprog{Len: 1, Filter: &filter}
	fd, _, e := syscall.Syscall(unix.SYS_SECCOMP, setModeFilter, flagNewListener, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(&filter)
	if e != 0 {
		return e, nil
	}
	defer unix.Close(int(fd))
	// A descriptor that doesn't exist: a kernel that knows the call complains about that (EBADF), and only then.
	request := struct {
		id                           uint64
		flags, srcfd, newfd, fdFlags uint32
	}{flags: addfdFlagSend, srcfd: ^uint32(0)}
	if _, _, e := syscall.Syscall(unix.SYS_IOCTL, fd, ioctlAddfd, uintptr(unsafe.Pointer(&request))); e != unix.EBADF {
		return nil, e
	}
	return nil, nil
}

// onThread runs f on an operating system thread that ends with it, and so takes along what f did to it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread can't end, and /proc/self shows its namespaces: keep it busy, so that f gets another.
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f() // still locked: the runtime ends the thread
	}()
	<-done
}
