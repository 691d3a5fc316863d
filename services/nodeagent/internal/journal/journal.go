// Package journal keeps fixed-size records in a mapped file, on tmpfs as a rule: they survive the agent, however it
// ends, but not a reboot.
//
// Invariant: a record is at every moment either as it was before a Put or as it is after it. Each slot has two places
// and one control word that names the current one, its length and its checksum; Put writes the other place and then
// stores that word, atomically. What does not match its checksum is not a record. Start reading at [File.Put].
package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Limits of a journal.
const (
	MaxRecordSize = 4096
	MaxRecords    = 1 << 22
	growth        = 1024 // slots by which the file grows
)

// Errors of a journal.
var (
	ErrFull   = errors.New("journal is full") // maxRecords are in use, or the file system has no space
	ErrClosed = errors.New("journal is closed")
)

// The control word of a slot: 0 for an empty one, else
//
//	bit 63     1
//	bit 62     which place is current
//	bits 32-44 length of the record
//	bits 0-31  CRC-32C of the record, seeded with slot number, place and length
const (
	controlValid  = 1 << 63
	controlPlace  = 1 << 62
	lengthShift   = 32
	lengthMask    = 1<<13 - 1
	checksumMask  = 1<<32 - 1
	controlUnused = ^uint64(controlValid | controlPlace | lengthMask<<lengthShift | checksumMask)
	controlSize   = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// File is an open journal. Alloc and Free may be called from many goroutines; Put too, for different slots.
type File struct {
	log        *slog.Logger
	recordSize int
	maxRecords int
	stride     int           // bytes of a slot
	used       []atomic.Bool // by slot

	// mu is held for reading while the mapping is used, and for writing while it changes.
	mu     sync.RWMutex
	file   backing
	mapped []byte // as large as the file can become; only the first slots*stride bytes after the header may be touched

	// allocMu guards everything below; it is taken after mu.
	allocMu sync.Mutex
	slots   int   // that the file has room for
	free    []int // slots below fresh that are free
	fresh   int   // slots from here to slots were never used
	inUse   int
}

// Alloc returns a slot that is nobody else's. It holds no record until Put.
func (f *File) Alloc() (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.mapped == nil {
		return 0, ErrClosed
	}
	f.allocMu.Lock()
	defer f.allocMu.Unlock()
	slot := f.fresh
	if n := len(f.free); n > 0 {
		slot, f.free = f.free[n-1], f.free[:n-1]
	} else {
		if f.fresh == f.slots {
			if err := f.grow(); err != nil {
				return 0, err
			}
		}
		f.fresh++
	}
	f.control(slot).Store(0)
	f.used[slot].Store(true)
	f.inUse++
	return slot, nil
}

func (f *File) grow() error {
	if f.slots >= f.maxRecords {
		return fmt.Errorf("%w: %d records", ErrFull, f.maxRecords)
	}
	slots := min(f.slots+growth, f.maxRecords)
	if err := f.file.reserve(f.offset(f.slots), f.offset(slots)); err != nil {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	f.slots = slots
	return nil
}

// Put stores the record of a slot, replacing the one before. The slot must have come from Alloc or Load and the data
// must not be longer than a record; otherwise nothing is stored, and that is logged.
func (f *File) Put(slot int, data []byte) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.mapped == nil || slot < 0 || slot >= len(f.used) || !f.used[slot].Load() || len(data) > f.recordSize {
		f.log.Error("record is not journalled: no such slot, or too long", "slot", slot, "bytes", len(data), "limit", f.recordSize)
		return
	}
	control := f.control(slot)
	place := ^control.Load() & controlPlace
	copy(f.place(slot, place), data)
	control.Store(controlWord(slot, place, data))
}

// Free empties a slot, for Alloc to hand out again. A slot that is free already stays so.
func (f *File) Free(slot int) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.mapped == nil || slot < 0 || slot >= len(f.used) {
		return
	}
	f.allocMu.Lock()
	defer f.allocMu.Unlock()
	if !f.used[slot].Load() {
		return
	}
	f.control(slot).Store(0)
	f.used[slot].Store(false)
	f.free = append(f.free, slot)
	f.inUse--
}

// Load calls visit for every record, by slot, with a copy of it. Visit may call Put and Free.
func (f *File) Load(visit func(slot int, data []byte)) {
	f.allocMu.Lock()
	fresh := f.fresh
	f.allocMu.Unlock()
	for slot := range fresh {
		if data, ok := f.read(slot); ok {
			visit(slot, data)
		}
	}
}

func (f *File) read(slot int) ([]byte, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.mapped == nil || !f.used[slot].Load() {
		return nil, false
	}
	return f.record(slot)
}

// record returns a copy of a slot's record if there is a valid one.
func (f *File) record(slot int) ([]byte, bool) {
	word := f.control(slot).Load()
	n := int(word >> lengthShift & lengthMask)
	if word&controlValid == 0 || word&controlUnused != 0 || n > f.recordSize {
		return nil, false
	}
	place := word & controlPlace
	data := make([]byte, n)
	copy(data, f.place(slot, place))
	return data, controlWord(slot, place, data) == word
}

// Used returns the number of slots in use.
func (f *File) Used() int {
	f.allocMu.Lock()
	defer f.allocMu.Unlock()
	return f.inUse
}

func controlWord(slot int, place uint64, data []byte) uint64 {
	word := place | uint64(len(data))<<lengthShift
	seed := uint32((word | uint64(slot)) * 0x9e3779b97f4a7c15 >> 32) // all of it in the checksum, without a buffer
	return controlValid | word | uint64(crc32.Update(seed, castagnoli, data))
}

func (f *File) offset(slot int) int64 { return headerSize + int64(slot)*int64(f.stride) }

func (f *File) control(slot int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&f.mapped[f.offset(slot)]))
}

func (f *File) place(slot int, place uint64) []byte {
	start := f.offset(slot) + controlSize
	if place != 0 {
		start += int64(padded(f.recordSize))
	}
	return f.mapped[start : start+int64(f.recordSize)]
}

// padded rounds up to whole words, so that control words are aligned.
func padded(n int) int { return (n + controlSize - 1) &^ (controlSize - 1) }
