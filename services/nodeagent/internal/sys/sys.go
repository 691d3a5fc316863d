// Package sys holds the system calls of the interception path, without allocation and without waiting in any normal
// case: sockets are polled first, sends and receives carry MSG_DONTWAIT.
//
// Invariant: only calls that an application can't make sleep are raw ones, which keep their scheduler slot (P) while
// they run and save the cost of giving it up. Memory access (a userfaultfd under a buffer), whatever takes the
// socket's lock, and closing (SO_LINGER) can be made to. Start reading at [Notify].
package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Close closes a descriptor of the agent.
func Close(fd int) { _, _, _ = syscall.Syscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// Socket makes a socket; see socket(2).
func Socket(domain, typ, proto int) (int, syscall.Errno) {
	fd, _, e := syscall.Syscall(unix.SYS_SOCKET, uintptr(domain), uintptr(typ), uintptr(proto))
	return int(fd), e
}

// PidfdGetfd duplicates descriptor fd of the task that pidfd stands for; see pidfd_getfd(2).
func PidfdGetfd(pidfd, fd int) (int, syscall.Errno) {
	r, _, e := syscall.RawSyscall(unix.SYS_PIDFD_GETFD, uintptr(pidfd), uintptr(fd), 0)
	return int(r), e
}

// Connect starts or continues a connect; the caller sees to it that it can't block.
func Connect(fd int, sa []byte) syscall.Errno {
	_, _, e := syscall.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}

// Bind binds a socket; see bind(2).
func Bind(fd int, sa []byte) syscall.Errno {
	_, _, e := syscall.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}

// Listen makes a socket listen; see listen(2).
func Listen(fd, backlog int) syscall.Errno {
	_, _, e := syscall.Syscall(unix.SYS_LISTEN, uintptr(fd), uintptr(backlog), 0)
	return e
}

// rights is ancillary data with one descriptor (unix(7), SCM_RIGHTS).
type rights struct {
	unix.Cmsghdr
	fd int32
	_  int32
}

// AcceptInto takes a connection that the caller knows to be waiting, and sends a copy of it into a UNIX socket whose other
// end somebody else holds too: if the agent is killed, the connection lives on there. The two calls follow each other as
// closely as can be: if the listening socket is non-blocking, so that accept4 can't sleep, not even the scheduler comes in
// between. It returns the peer's address as it fills sa. A copy that doesn't fit is left out.
func AcceptInto(fd, transit int, sa []byte, flags int, nonblock bool) (conn, saLen int, _ syscall.Errno) {
	n := uint32(len(sa))
	var r uintptr
	var e syscall.Errno
	if nonblock {
		r, _, e = syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))),
			uintptr(unsafe.Pointer(&n)), uintptr(flags), 0, 0)
	} else {
		r, _, e = syscall.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))),
			uintptr(unsafe.Pointer(&n)), uintptr(flags), 0, 0)
	}
	if e == 0 {
		PutTransit(transit, int(r))
	}
	return int(r), int(n), e
}

// PutTransit sends a copy of a connection into transit. One that doesn't fit is left out.
func PutTransit(transit, conn int) {
	control := rights{fd: int32(conn)}
	control.Len, control.Level, control.Type = unix.SizeofCmsghdr+4, unix.SOL_SOCKET, unix.SCM_RIGHTS
	var one byte
	iov := unix.Iovec{Base: &one, Len: 1}
	hdr := unix.Msghdr{Iov: &iov, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control)), Controllen: uint64(unsafe.Sizeof(control))}
	_, _, _ = syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(transit), uintptr(unsafe.Pointer(&hdr)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// TakeTransit takes the oldest connection out of transit; the caller closes it. EAGAIN: there is none. -1 without an error:
// what came was none.
func TakeTransit(transit int) (conn int, _ syscall.Errno) { return receiveTransit(transit, 0) }

// PeekTransit is TakeTransit that leaves the connection there. Where PeekTransitFrom has set where to begin, the next call goes on
// behind it (socket(7), SO_PEEK_OFF).
func PeekTransit(transit int) (conn int, _ syscall.Errno) {
	return receiveTransit(transit, unix.MSG_PEEK)
}

// PeekTransitFrom lets PeekTransit begin with the oldest connection and go on from one to the next, or, if it is off, stay there.
func PeekTransitFrom(transit int, on bool) syscall.Errno {
	offset := -1
	if on {
		offset = 0
	}
	return SetsockoptInt(transit, unix.SOL_SOCKET, unix.SO_PEEK_OFF, offset)
}

func receiveTransit(transit int, flags uintptr) (conn int, _ syscall.Errno) {
	control := rights{}
	var one byte
	iov := unix.Iovec{Base: &one, Len: 1}
	hdr := unix.Msghdr{Iov: &iov, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control)), Controllen: uint64(unsafe.Sizeof(control))}
	n, _, e := syscall.Syscall(unix.SYS_RECVMSG, uintptr(transit), uintptr(unsafe.Pointer(&hdr)), flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case e != 0:
		return -1, e
	case n == 0:
		return -1, syscall.EAGAIN // the other end is closed
	case control.Level != unix.SOL_SOCKET || control.Type != unix.SCM_RIGHTS || hdr.Controllen < unix.SizeofCmsghdr+4:
		return -1, 0
	}
	return int(control.fd), 0
}

// Getsockname reads a socket's real local address into sa.
func Getsockname(fd int, sa []byte) (int, syscall.Errno) { return name(unix.SYS_GETSOCKNAME, fd, sa) }

// Getpeername reads a socket's real peer address into sa.
func Getpeername(fd int, sa []byte) (int, syscall.Errno) { return name(unix.SYS_GETPEERNAME, fd, sa) }

func name(nr uintptr, fd int, sa []byte) (int, syscall.Errno) {
	n := uint32(len(sa))
	_, _, e := syscall.Syscall(nr, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(unsafe.Pointer(&n)))
	return int(n), e
}

// GetsockoptInt reads an integer option.
func GetsockoptInt(fd, level, opt int) (int, syscall.Errno) {
	var v int32
	n := uint32(4)
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	return int(v), e
}

// SetsockoptInt sets an integer option.
func SetsockoptInt(fd, level, opt, v int) syscall.Errno {
	val := int32(v)
	_, _, e := syscall.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(unsafe.Pointer(&val)), 4, 0)
	return e
}

// Cookie reads a socket's cookie: its identity in the kernel, never reused while the machine is up (SO_COOKIE).
// It fails with ENOTSOCK for any other file.
func Cookie(fd int) (uint64, syscall.Errno) {
	var v uint64
	n := uint32(8)
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_COOKIE,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	return v, e
}

// Flags reads the file status flags (fcntl F_GETFL).
func Flags(fd int) int {
	r, _, e := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETFL, 0)
	if e != 0 {
		return 0
	}
	return int(r)
}

// Ready polls one descriptor without waiting and returns its events.
func Ready(fd int, events int16) int16 {
	p := unix.PollFd{Fd: int32(fd), Events: events}
	var zero unix.Timespec
	n, _, e := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
	if e != 0 || n == 0 {
		return 0
	}
	return p.Revents
}

// Yield lets another thread run that waits for this processor, if there is one.
func Yield() { _, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// SendTimeout reads SO_SNDTIMEO.
func SendTimeout(fd int) (unix.Timeval, syscall.Errno) { return timeout(fd, unix.SO_SNDTIMEO) }

// ReceiveTimeout reads SO_RCVTIMEO.
func ReceiveTimeout(fd int) (unix.Timeval, syscall.Errno) { return timeout(fd, unix.SO_RCVTIMEO) }

func timeout(fd, opt int) (unix.Timeval, syscall.Errno) {
	var tv unix.Timeval
	n := uint32(unsafe.Sizeof(tv))
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(opt),
		uintptr(unsafe.Pointer(&tv)), uintptr(unsafe.Pointer(&n)), 0)
	return tv, e
}

// SetSendTimeout sets SO_SNDTIMEO. A negative time means "never wait" (sock_set_timeout in net/core/sock.c).
func SetSendTimeout(fd int, tv unix.Timeval) syscall.Errno {
	_, _, e := syscall.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_SNDTIMEO,
		uintptr(unsafe.Pointer(&tv)), unsafe.Sizeof(tv), 0)
	return e
}

// Sendmsg sends without waiting (MSG_DONTWAIT is added) and without raising SIGPIPE.
func Sendmsg(fd int, m *unix.Msghdr, flags int) (int, syscall.Errno) {
	r, _, e := syscall.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	return int(r), e
}

// Recvmsg receives without waiting (MSG_DONTWAIT is added).
func Recvmsg(fd int, m *unix.Msghdr, flags int) (int, syscall.Errno) {
	r, _, e := syscall.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(flags|unix.MSG_DONTWAIT))
	return int(r), e
}

// ReadMemory copies from the memory of task tid; short reads count as EFAULT.
func ReadMemory(tid int, addr uint64, into []byte) syscall.Errno {
	return vm(unix.SYS_PROCESS_VM_READV, tid, addr, into)
}

// WriteMemory copies into the memory of task tid; short writes count as EFAULT.
func WriteMemory(tid int, addr uint64, from []byte) syscall.Errno {
	return vm(unix.SYS_PROCESS_VM_WRITEV, tid, addr, from)
}

func vm(nr uintptr, tid int, addr uint64, buf []byte) syscall.Errno {
	if len(buf) == 0 {
		return 0
	}
	local := unix.Iovec{Base: unsafe.SliceData(buf), Len: uint64(len(buf))}
	remote := unix.RemoteIovec{Base: uintptr(addr), Len: len(buf)}
	n, _, e := syscall.Syscall6(nr, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if e != 0 {
		return e
	}
	if int(n) != len(buf) {
		return syscall.EFAULT
	}
	return 0
}

// WriteMemory2 is WriteMemory to two places in one system call, in order.
func WriteMemory2(tid int, addr1 uint64, from1 []byte, addr2 uint64, from2 []byte) syscall.Errno {
	local := [2]unix.Iovec{{Base: unsafe.SliceData(from1), Len: uint64(len(from1))}, {Base: unsafe.SliceData(from2), Len: uint64(len(from2))}}
	remote := [2]unix.RemoteIovec{{Base: uintptr(addr1), Len: len(from1)}, {Base: uintptr(addr2), Len: len(from2)}}
	n, _, e := syscall.Syscall6(unix.SYS_PROCESS_VM_WRITEV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 2, uintptr(unsafe.Pointer(&remote)), 2, 0)
	if e == 0 && int(n) != len(from1)+len(from2) {
		e = syscall.EFAULT
	}
	return e
}
