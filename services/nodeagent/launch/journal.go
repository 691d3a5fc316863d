package launch

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/wire"
)

// linux/memfd.h and linux/fcntl.h
const (
	mfdCloexec      = 1
	mfdAllowSealing = 2
	mfdNoexecSeal   = 8
	fAddSeals       = 1033
	sealSeal        = 1
	sealShrink      = 2
	sealGrow        = 4
)

// createJournal makes the memory file in which the agent notes the calls in flight. The seals protect whoever maps
// it: it can't shrink under them.
func createJournal() (int, error) {
	name := []byte("ax-journal\x00")
	create := func(flags uintptr) (int, syscall.Errno) {
		fd, _, errno := syscall.RawSyscall(sysMemfdCreate, uintptr(unsafe.Pointer(&name[0])), flags, 0)
		return int(fd), errno
	}
	fd, errno := create(mfdCloexec | mfdAllowSealing | mfdNoexecSeal)
	if errno == syscall.EINVAL { // before Linux 6.3
		fd, errno = create(mfdCloexec | mfdAllowSealing)
	}
	if errno != 0 {
		return -1, text.Wrap(errno, "create the journal")
	}
	if err := fillJournal(fd); err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func fillJournal(fd int) error {
	if err := syscall.Ftruncate(fd, wire.JournalSize); err != nil {
		return text.Wrap(err, "size the journal")
	}
	var magic [8]byte
	for i := range magic {
		magic[i] = byte(uint64(wire.JournalMagic) >> (8 * i))
	}
	if _, err := syscall.Pwrite(fd, magic[:], 0); err != nil {
		return text.Wrap(err, "write the journal's header")
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), fAddSeals, sealSeal|sealShrink|sealGrow); errno != 0 {
		return text.Wrap(errno, "seal the journal")
	}
	return nil
}

// journal is the mapped file.
type journal []byte

func mapJournal(fd int) (journal, error) {
	m, err := syscall.Mmap(fd, 0, wire.JournalSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, text.Wrap(err, "map the journal")
	}
	return m, nil
}

// id returns the word that holds a slot's notification id, shared with other processes. It is the first field of
// struct seccomp_notif, and slots are aligned.
func (j journal) id(slot int) *uint64 {
	return (*uint64)(unsafe.Pointer(&j[wire.JournalHeader+slot*wire.JournalSlotSize]))
}

// take empties the journal, calling answer for every call that was in flight.
func (j journal) take(answer func(id uint64)) {
	for slot := range wire.JournalSlots {
		word := j.id(slot)
		if id := atomic.LoadUint64(word); id != 0 {
			answer(id)
			atomic.CompareAndSwapUint64(word, id, 0)
		}
	}
}
