package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/launch/wire"
	"golang.org/x/sys/unix"
)

// inflight is the journal of the calls in flight (see package wire). The kernel writes a notification straight into a
// slot, so that a crash at any instruction leaves it readable. A caller beyond the last slot is served from ordinary
// memory and counted: only a crash would show the difference.
type inflight struct {
	mem  []byte
	free []int32
}

const noSlot = -1

// openInflight maps the journal. Its maker is not trusted: without the seals, shrinking it would kill the agent.
func openInflight(fd int) (*inflight, error) {
	const want = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&want != want {
		return nil, errors.New("journal of calls is not a sealed memory file")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != wire.JournalSize {
		return nil, fmt.Errorf("journal of calls has %d bytes, want %d", st.Size, wire.JournalSize)
	}
	mem, err := unix.Mmap(fd, 0, wire.JournalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map journal of calls: %w", err)
	}
	if binary.LittleEndian.Uint64(mem) != wire.JournalMagic {
		_ = unix.Munmap(mem)
		return nil, errors.New("journal of calls has another format")
	}
	j := &inflight{mem: mem}
	for i := int32(wire.JournalSlots - 1); i >= 0; i-- {
		if j.notify(i).ID == 0 {
			j.free = append(j.free, i)
		}
	}
	return j, nil
}

func (j *inflight) close() { _ = unix.Munmap(j.mem) }

func (j *inflight) notify(slot int32) *sys.Notify {
	return (*sys.Notify)(unsafe.Pointer(&j.mem[wire.JournalHeader+int(slot)*wire.JournalSlotSize]))
}

// note remembers which socket is being given to the caller of a journalled call: should the agent die before the call is
// answered, the next one finds out whether the caller has it. It goes into the slot behind the notification.
func (j *inflight) note(slot int32, cookie uint64) {
	if slot != noSlot {
		*j.cookie(slot) = cookie
	}
}

func (j *inflight) cookie(slot int32) *uint64 {
	return (*uint64)(unsafe.Pointer(&j.mem[wire.JournalHeader+int(slot)*wire.JournalSlotSize+sys.NotifySlotSize]))
}

// take hands out a zeroed slot, or noSlot and ordinary memory when all are taken.
func (j *inflight) take() (int32, *sys.Notify) {
	if len(j.free) == 0 {
		return noSlot, new(sys.Notify)
	}
	slot := j.free[len(j.free)-1]
	j.free = j.free[:len(j.free)-1]
	*j.cookie(slot) = 0 // an agent may have died within release
	return slot, j.notify(slot)
}

// release clears a slot whose call is over: the id first, so that a crash in between finds no call.
func (j *inflight) release(slot int32) {
	if slot == noSlot {
		return
	}
	n := j.notify(slot)
	n.ID = 0
	*n = sys.Notify{}
	*j.cookie(slot) = 0
	j.free = append(j.free, slot)
}

// orphans lists the slots of calls that an earlier agent has received and not answered.
func (j *inflight) orphans() []int32 {
	var out []int32
	for i := range int32(wire.JournalSlots) {
		if j.notify(i).ID != 0 {
			out = append(out, i)
		}
	}
	return out
}
