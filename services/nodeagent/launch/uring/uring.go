// Package uring is the little of io_uring(7) that keeps a connection alive while it passes through the node agent: a ring
// has a table of files of its own, and what is in there lives for as long as somebody holds the ring, whoever dies.
//
// Invariant: a [Ring] is used by one goroutine at a time, and [Ring.Do] returns with every result, or breaks the ring.
// It imports next to nothing: `ax run` starts the holder with it. Start reading at [Ring.Do].
package uring

import (
	"errors"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// System calls; the numbers are the same on every architecture.
const (
	sysSetup    = 425
	sysEnter    = 426
	sysRegister = 427
)

// From linux/io_uring.h.
const (
	OpAccept         = 13 // Linux 5.5
	OpClose          = 19 // Linux 5.6
	OpMsgRing        = 40 // Linux 5.18
	OpFixedFDInstall = 54 // Linux 6.8

	FlagFixedFile = 1 << 0 // FD is a place in the ring's table
	FlagLink      = 1 << 2 // the next operation runs after this one, and not at all if this one fails
	FlagHardlink  = 1 << 3 // the next operation runs after this one, even if this one fails

	AcceptDontWait = 1 << 1 // in Priority of OpAccept: EAGAIN instead of waiting, whatever the socket's flags; Linux 6.10

	MsgSendFD  = 1      // in Addr of OpMsgRing: send the file at place Addr3
	MsgCQESkip = 1 << 0 // in OpFlags of OpMsgRing: the other ring is not told

	registerFiles2      = 13
	registerFilesUpdate = 6
	registerSparse      = 1

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	offsetRings = 0
	offsetOps   = 0x10000000

	featSingleMmap = 1 << 0
)

// Op is one operation: struct io_uring_sqe. Place numbers that an operation writes to are one higher than the place.
type Op struct {
	Opcode    uint8
	Flags     uint8
	Priority  uint16
	FD        int32
	Off       uint64 // or a second address
	Addr      uint64
	Len       uint32
	OpFlags   uint32
	user      uint64
	buf       uint16
	persona   uint16
	FileIndex uint32
	Addr3     uint64
	_         uint64
}

const (
	sizeOp         = 64
	sizeCompletion = 16
)

// submission and completion say where things are in the memory shared with the kernel: struct io_sqring_offsets and
// struct io_cqring_offsets.
type submission struct {
	head, tail, mask, entries, flags, dropped, array, _ uint32
	_                                                   uint64
}

type completion struct {
	head, tail, mask, entries, overflow, cqes, flags, _ uint32
	_                                                   uint64
}

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32

	_  [3]uint32
	sq submission
	cq completion
}

// Ring is an io_uring of this process.
type Ring struct {
	fd          int
	rings, ops  []byte
	sqTail      *atomic.Uint32
	cqHead      *atomic.Uint32
	cqTail      *atomic.Uint32
	sqMask      uint32
	cqMask      uint32
	array, cqes uint32 // offsets in rings
	operations  int
	broken      bool
}

// New makes a ring for so many operations at once, with an empty table of so many files. ENOSYS, EPERM: there is no
// io_uring here, or it is forbidden (kernel.io_uring_disabled, a container's seccomp profile).
func New(operations, files int) (*Ring, syscall.Errno) {
	var p params
	fd, _, errno := syscall.RawSyscall(sysSetup, uintptr(operations), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r := &Ring{fd: int(fd), operations: operations}
	errno = r.mapMemory(&p)
	if errno == 0 {
		register := struct {
			nr, flags     uint32
			_, data, tags uint64
		}{nr: uint32(files), flags: registerSparse}
		errno = r.register(registerFiles2, unsafe.Pointer(&register), unsafe.Sizeof(register))
	}
	if errno != 0 {
		r.Close()
		return nil, errno
	}
	return r, 0
}

func (r *Ring) mapMemory(p *params) syscall.Errno {
	if p.features&featSingleMmap == 0 {
		return syscall.ENOSYS // before Linux 5.4
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+sizeCompletion*p.cqEntries)
	const access, shared = syscall.PROT_READ | syscall.PROT_WRITE, syscall.MAP_SHARED | syscall.MAP_POPULATE
	var err error
	if r.rings, err = syscall.Mmap(r.fd, offsetRings, int(size), access, shared); err == nil {
		r.ops, err = syscall.Mmap(r.fd, offsetOps, int(p.sqEntries)*sizeOp, access, shared)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	r.sqTail, r.sqMask = r.word(p.sq.tail), r.word(p.sq.mask).Load()
	r.cqHead, r.cqTail, r.cqMask = r.word(p.cq.head), r.word(p.cq.tail), r.word(p.cq.mask).Load()
	r.array, r.cqes = p.sq.array, p.cq.cqes
	return 0
}

func (r *Ring) word(at uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.rings[at])) }

// Broken reports whether the ring was given up.
func (r *Ring) Broken() bool { return r.broken }

// FD is the ring's descriptor. Whoever has a copy of it keeps the table alive.
func (r *Ring) FD() int { return r.fd }

// Close lets go of the ring.
func (r *Ring) Close() {
	for _, m := range [][]byte{r.rings, r.ops} {
		if m != nil {
			_ = syscall.Munmap(m)
		}
	}
	_ = syscall.Close(r.fd)
}

// Do carries out operations and waits for all of them; results gets what each returned, an errno as a negative number. None
// of them may be one that waits: after [patience] the ring is given up and Do fails with ETIME, then and from there on.
func (r *Ring) Do(ops []Op, results []int32) syscall.Errno {
	if r.broken || len(ops) > r.operations {
		return syscall.EBADF
	}
	tail := r.sqTail.Load()
	for i := range ops {
		at := tail & r.sqMask
		op := (*Op)(unsafe.Pointer(&r.ops[at*sizeOp]))
		*op = ops[i]
		op.user = uint64(i)
		*(*uint32)(unsafe.Pointer(&r.rings[r.array+4*at])) = at
		tail++
	}
	r.sqTail.Store(tail)
	submit := len(ops)
	for reaped := 0; ; {
		reaped += r.reap(results[:len(ops)])
		if submit == 0 && reaped == len(ops) {
			return 0
		}
		n, errno := r.enter(submit, len(ops)-reaped)
		if errno != 0 && errno != syscall.EINTR {
			r.broken = true
			return errno
		}
		submit -= n
	}
}

// patience is for how long, in seconds, Do waits for what should take microseconds.
const patience = 2

// enter submits operations and waits for some to be completed.
func (r *Ring) enter(submit, wait int) (int, syscall.Errno) {
	timeout := struct{ sec, nsec int64 }{sec: patience}
	arg := struct {
		sigmask     uint64
		sigmaskSize uint32
		_           uint32
		timeout     unsafe.Pointer
	}{timeout: unsafe.Pointer(&timeout)}
	n, _, errno := syscall.Syscall6(sysEnter, uintptr(r.fd), uintptr(submit), uintptr(wait), enterGetEvents|enterExtArg,
		uintptr(unsafe.Pointer(&arg)), unsafe.Sizeof(arg))
	if errno != 0 {
		n = 0
	}
	return int(n), errno
}

// reap takes the results that are there.
func (r *Ring) reap(results []int32) (n int) {
	head := r.cqHead.Load()
	for ; head != r.cqTail.Load(); head++ {
		at := r.cqes + sizeCompletion*(head&r.cqMask)
		user := *(*uint64)(unsafe.Pointer(&r.rings[at]))
		if user < uint64(len(results)) {
			results[user] = *(*int32)(unsafe.Pointer(&r.rings[at+8]))
		}
		n++
	}
	r.cqHead.Store(head)
	return n
}

func (r *Ring) register(what uintptr, arg unsafe.Pointer, n uintptr) syscall.Errno {
	return register(r.fd, what, arg, n)
}

func register(ring int, what uintptr, arg unsafe.Pointer, n uintptr) syscall.Errno {
	_, _, errno := syscall.Syscall6(sysRegister, uintptr(ring), what, uintptr(arg), n, 0, 0)
	return errno
}

// Put puts a copy of a file into a place of any ring's table, or empties it if fd is -1.
func Put(ring int, place uint32, fd int) syscall.Errno {
	file := int32(fd)
	update := struct {
		offset, _ uint32
		fds       unsafe.Pointer
	}{offset: place, fds: unsafe.Pointer(&file)}
	return register(ring, registerFilesUpdate, unsafe.Pointer(&update), 1)
}

// Take copies the files in the table out of it, in order of their places, and empties it. Of a ring of this process only.
func (r *Ring) Take(files int) (fds []int) {
	for place := range files {
		op := [1]Op{{Opcode: OpFixedFDInstall, Flags: FlagFixedFile, FD: int32(place)}}
		var result [1]int32
		if r.Do(op[:], result[:]) != 0 || result[0] < 0 {
			continue // EBADF: nothing is there
		}
		fds = append(fds, int(result[0]))
		_ = Put(r.fd, uint32(place), -1)
	}
	return fds
}
