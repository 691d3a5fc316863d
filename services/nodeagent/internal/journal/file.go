package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/bits"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The header fills the first page; the rest of it is zero.
const (
	headerSize   = 4096
	headerLength = 8 + 4 + 4 + bootIDLength + 4
	bootIDLength = 36
	bootIDPath   = "/proc/sys/kernel/random/boot_id"

	magic   = 0x6c6e726a64657861 // "axedjrnl"
	version = 1
)

// Open opens the journal at path, or makes one. What another version, another record size or another boot has left
// there is dropped, and so is what is not a record; both are logged. Only one process at a time has it open.
func Open(path string, recordSize, maxRecords int, log *slog.Logger) (*File, error) {
	if recordSize < 1 || recordSize > MaxRecordSize || maxRecords < 1 || maxRecords > MaxRecords {
		return nil, fmt.Errorf("journal %s: %d records of %d bytes: want 1 to %d of 1 to %d", path, maxRecords, recordSize, MaxRecords, MaxRecordSize)
	}
	boot, err := os.ReadFile(bootIDPath)
	if err != nil {
		return nil, fmt.Errorf("journal %s: boot id: %w", path, err)
	}
	f := &File{
		log: log, recordSize: recordSize, maxRecords: maxRecords,
		stride: controlSize + 2*padded(recordSize),
		used:   make([]atomic.Bool, maxRecords),
	}
	if f.file, err = openBacking(path); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := f.start(header(recordSize, strings.TrimSpace(string(boot)))); err != nil {
		f.file.Close()
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return f, nil
}

// start brings the file into shape, maps it and finds the records in it.
func (f *File) start(want []byte) error {
	size, err := f.file.size()
	if err != nil {
		return err
	}
	have := make([]byte, headerLength)
	if _, err := f.file.ReadAt(have, 0); size < headerSize || err != nil || !bytes.Equal(have, want) {
		if size > 0 {
			f.log.Warn("journal of another boot, version or format is dropped", "path", f.file.Name(), "bytes", size)
		}
		if err := f.file.renew(want); err != nil {
			return err
		}
		size = headerSize
	}
	f.slots = int(min((size-headerSize)/int64(f.stride), int64(f.maxRecords)))
	if err := f.file.Truncate(f.offset(f.slots)); err != nil {
		return err
	}
	if err := f.file.reserve(0, f.offset(f.slots)); err != nil {
		return err
	}
	if f.mapped, err = unix.Mmap(int(f.file.Fd()), 0, int(f.offset(f.maxRecords)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map: %w", err)
	}
	f.scan()
	return nil
}

// scan finds out which slots are in use, and clears what looks like a record but isn't one.
func (f *File) scan() {
	dropped := 0
	f.fresh = f.slots
	for slot := f.slots - 1; slot >= 0; slot-- { // so that low slots are handed out first
		if _, ok := f.record(slot); ok {
			f.used[slot].Store(true)
			f.inUse++
			continue
		}
		if f.control(slot).Swap(0) != 0 {
			dropped++
		}
		f.free = append(f.free, slot)
	}
	if dropped > 0 {
		f.log.Warn("damaged records of the journal are dropped", "path", f.file.Name(), "records", dropped)
	}
}

// Reset drops all records.
func (f *File) Reset() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mapped == nil {
		return ErrClosed
	}
	f.allocMu.Lock()
	defer f.allocMu.Unlock()
	for slot := range f.fresh {
		f.control(slot).Store(0)
		f.used[slot].Store(false)
	}
	f.slots, f.fresh, f.free, f.inUse = 0, 0, nil, 0
	if err := f.file.Truncate(headerSize); err != nil {
		return fmt.Errorf("reset journal %s: %w", f.file.Name(), err)
	}
	return nil
}

// Close unmaps the file; the records stay in it.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mapped == nil {
		return nil
	}
	err := unix.Munmap(f.mapped)
	f.mapped = nil
	return errors.Join(err, f.file.Close())
}

func header(recordSize int, bootID string) []byte {
	b := make([]byte, 0, headerLength)
	b = binary.LittleEndian.AppendUint64(b, magic)
	b = binary.LittleEndian.AppendUint32(b, version|uint32(bits.UintSize)<<16)
	b = binary.LittleEndian.AppendUint32(b, uint32(recordSize))
	b = append(b, fmt.Sprintf("%-*.*s", bootIDLength, bootIDLength, bootID)...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// backing is the file below a journal.
type backing struct{ *os.File }

func openBacking(path string) (backing, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return backing{}, err
	}
	b := backing{file}
	if err := b.own(); err != nil {
		file.Close()
		return backing{}, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func (b backing) own() error {
	info, err := b.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file: remove it")
	}
	if info.Mode().Perm() != 0o600 {
		if err := b.Chmod(0o600); err != nil {
			return err
		}
	}
	if err := unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("in use by another agent: stop it first: %w", err)
	}
	return nil
}

func (b backing) size() (int64, error) {
	info, err := b.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// renew empties the file and writes the header.
func (b backing) renew(header []byte) error {
	if err := b.Truncate(0); err != nil {
		return err
	}
	if err := b.reserve(0, headerSize); err != nil {
		return err
	}
	_, err := b.WriteAt(header, 0)
	return err
}

// reserve makes sure that the bytes from start to end exist and have space of their own: a page that the file system
// can't find space for when it is touched would kill the agent (SIGBUS).
func (b backing) reserve(start, end int64) error {
	if end <= start {
		return nil
	}
	for {
		err := unix.Fallocate(int(b.Fd()), 0, start, end-start)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = b.fill(start, end)
		}
		if err != nil {
			return fmt.Errorf("reserve %d bytes: %w", end-start, err)
		}
		return nil
	}
}

// fill reserves what lies beyond the end of the file by writing zeros.
func (b backing) fill(start, end int64) error {
	size, err := b.size()
	if err != nil || size >= end {
		return err
	}
	start = max(start, size)
	_, err = b.WriteAt(make([]byte, end-start), start)
	return err
}
