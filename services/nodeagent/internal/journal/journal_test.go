package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const testSize = 64 // of records in tests

// open opens a journal and closes it with the test; the buffer holds what it logs.
func open(t testing.TB, path string, size, records int) (*File, *bytes.Buffer) {
	t.Helper()
	logged := &bytes.Buffer{}
	f, err := Open(path, size, records, slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, logged
}

func reopen(t testing.TB, f *File) (*File, *bytes.Buffer) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, f.file.Name(), f.recordSize, f.maxRecords)
}

func put(t testing.TB, f *File, data string) int {
	t.Helper()
	slot, err := f.Alloc()
	if err != nil {
		t.Fatal(err)
	}
	f.Put(slot, []byte(data))
	return slot
}

func load(f *File) map[int]string {
	all := map[int]string{}
	f.Load(func(slot int, data []byte) { all[slot] = string(data) })
	return all
}

func check(t testing.TB, f *File, want map[int]string) {
	t.Helper()
	if got := load(f); !maps.Equal(got, want) {
		t.Errorf("journal holds %v, want %v", got, want)
	}
}

func TestRecordsSurvive(t *testing.T) {
	f, logged := open(t, filepath.Join(t.TempDir(), "j"), testSize, 10)
	longest := strings.Repeat("x", testSize)
	for i, data := range []string{"a", "", longest, "d"} {
		if slot := put(t, f, data); slot != i {
			t.Errorf("record %d has slot %d", i, slot)
		}
	}
	f.Put(0, []byte("A"))
	f.Put(0, []byte("AA"))
	f.Free(3)
	if _, err := f.Alloc(); err != nil { // without a record
		t.Fatal(err)
	}
	want := map[int]string{0: "AA", 1: "", 2: longest}
	check(t, f, want)
	f, logged2 := reopen(t, f)
	check(t, f, want)
	if f.Used() != 3 || logged.Len()+logged2.Len() > 0 {
		t.Errorf("%d in use, log: %s%s", f.Used(), logged, logged2)
	}
	if slot := put(t, f, "new"); slot != 3 {
		t.Errorf("new record has slot %d, want 3", slot)
	}
	want[3] = "new"
	f, _ = reopen(t, f)
	check(t, f, want)
}

func TestLoadMayFreeAndPut(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 10)
	for _, data := range []string{"a", "b", "c"} {
		put(t, f, data)
	}
	f.Load(func(slot int, data []byte) {
		if slot == 0 {
			f.Free(0)
			f.Free(2)
		}
		f.Put(1, []byte("B"))
		data[0] = 'z' // ours
	})
	check(t, f, map[int]string{1: "B"})
}

func TestAllocFree(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 3)
	for range 3 {
		put(t, f, "x")
	}
	if _, err := f.Alloc(); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "3 records") {
		t.Errorf("fourth of three slots: %v", err)
	}
	f.Free(1)
	f.Free(1)
	if f.Used() != 2 {
		t.Errorf("%d in use after a double free, want 2", f.Used())
	}
	check(t, f, map[int]string{0: "x", 2: "x"})
	if slot, err := f.Alloc(); slot != 1 || err != nil {
		t.Errorf("slot %d, %v; want 1", slot, err)
	}
	check(t, f, map[int]string{0: "x", 2: "x"}) // the new slot does not show what was in it
	if _, err := f.Alloc(); !errors.Is(err, ErrFull) {
		t.Errorf("after a double free a slot was given out twice: %v", err)
	}
}

func TestMisuseIsRefused(t *testing.T) {
	f, logged := open(t, filepath.Join(t.TempDir(), "j"), testSize, 3)
	slot := put(t, f, "x")
	for _, c := range []struct {
		slot int
		data string
	}{{-1, "a"}, {1, "a"}, {3, "a"}, {1 << 40, "a"}, {slot, strings.Repeat("x", testSize+1)}} {
		logged.Reset()
		f.Put(c.slot, []byte(c.data))
		if !strings.Contains(logged.String(), "not journalled") {
			t.Errorf("Put(%d, %d bytes) is not logged", c.slot, len(c.data))
		}
		f.Free(-1)
		f.Free(3)
	}
	check(t, f, map[int]string{slot: "x"})
}

func TestGrowth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	f, _ := open(t, path, testSize, 3*growth-7)
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if size() != headerSize {
		t.Errorf("an empty journal has %d bytes, want %d", size(), headerSize)
	}
	want := map[int]string{}
	for i := range 3*growth - 7 {
		want[put(t, f, fmt.Sprint(i))] = fmt.Sprint(i)
		if i == 0 && size() != f.offset(growth) {
			t.Errorf("with one record the journal has %d bytes, want %d", size(), f.offset(growth))
		}
	}
	if size() != f.offset(3*growth-7) {
		t.Errorf("full, the journal has %d bytes, want %d", size(), f.offset(3*growth-7))
	}
	check(t, f, want)
	f, _ = reopen(t, f)
	check(t, f, want)
	if _, err := f.Alloc(); !errors.Is(err, ErrFull) {
		t.Errorf("full after reopening: %v", err)
	}

	for slot := growth; slot < 3*growth-7; slot++ {
		delete(want, slot)
	}
	f.Close()
	f, _ = open(t, path, testSize, growth) // a smaller limit keeps what fits
	check(t, f, want)
}

func TestReset(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 2*growth)
	for range growth + 1 {
		put(t, f, "x")
	}
	if err := f.Reset(); err != nil {
		t.Fatal(err)
	}
	check(t, f, map[int]string{})
	f.Put(0, []byte("stale")) // a slot from before
	if slot := put(t, f, "new"); slot != 0 || f.Used() != 1 {
		t.Errorf("first slot after Reset is %d, %d in use", slot, f.Used())
	}
	f, _ = reopen(t, f)
	check(t, f, map[int]string{0: "new"})
}

func TestClosed(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 10)
	slot := put(t, f, "x")
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	f.Put(slot, []byte("y"))
	f.Free(slot)
	check(t, f, map[int]string{})
	if _, err := f.Alloc(); !errors.Is(err, ErrClosed) {
		t.Errorf("Alloc: %v", err)
	}
	if err := f.Reset(); !errors.Is(err, ErrClosed) {
		t.Errorf("Reset: %v", err)
	}
	f, _ = reopen(t, f)
	check(t, f, map[int]string{slot: "x"})
}

func TestOnlyOneHasItOpen(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 10)
	if _, err := Open(f.file.Name(), testSize, 10, f.log); !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second Open: %v", err)
	}
}

func TestForeignContentIsDropped(t *testing.T) {
	for name, damage := range map[string]func(content []byte) []byte{
		"empty file":       func([]byte) []byte { return nil },
		"short header":     func(b []byte) []byte { return b[:headerLength-1] },
		"header only":      func(b []byte) []byte { return b[:headerLength] },
		"other magic":      func(b []byte) []byte { b[0]++; return b },
		"other version":    func(b []byte) []byte { b[8]++; return b },
		"other size":       func(b []byte) []byte { b[12]++; return b },
		"other boot":       func(b []byte) []byte { b[16] ^= 1; return b },
		"another boot, ok": func(b []byte) []byte { return append(header(testSize, strings.Repeat("0", 36)), b[headerLength:]...) },
		"other checksum":   func(b []byte) []byte { b[headerLength-1]++; return b },
		"text":             func([]byte) []byte { return bytes.Repeat([]byte("not a journal\n"), 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "j")
			f, _ := open(t, path, testSize, 10)
			put(t, f, "x")
			f.Close()
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			content = damage(content)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			f, logged := open(t, path, testSize, 10)
			check(t, f, map[int]string{})
			if said := strings.Contains(logged.String(), "dropped"); said != (len(content) > 0) {
				t.Errorf("log: %q", logged)
			}
			put(t, f, "y")
			f, logged = reopen(t, f)
			check(t, f, map[int]string{0: "y"})
			if logged.Len() > 0 {
				t.Errorf("log: %q", logged)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "j")
	f, _ := open(t, path, testSize, 10)
	put(t, f, "x")
	f.Close()
	f, logged := open(t, path, testSize+1, 10)
	check(t, f, map[int]string{})
	if !strings.Contains(logged.String(), "dropped") {
		t.Errorf("another record size is not logged: %q", logged)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		"fifo": "regular file", "link": "symbolic", ".": "directory", "no/such/dir": "no such file",
	} {
		if f, err := Open(filepath.Join(dir, path), testSize, 10, discard()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Open(%q) = %v, %v; want an error that says %q", path, f, err, says)
		}
	}
	for _, c := range [][2]int{{0, 10}, {-1, 10}, {MaxRecordSize + 1, 10}, {10, 0}, {10, MaxRecords + 1}} {
		if _, err := Open(filepath.Join(dir, "j"), c[0], c[1], discard()); err == nil {
			t.Errorf("Open with %d records of %d bytes succeeds", c[1], c[0])
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path, testSize, 10)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

// TestEveryInstructionOfPut stops a Put before each store it makes.
func TestEveryInstructionOfPut(t *testing.T) {
	for _, puts := range []int{1, 2} { // so that each place is the current one
		f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 10)
		slot, err := f.Alloc()
		if err != nil {
			t.Fatal(err)
		}
		for range puts {
			f.Put(slot, []byte("the old record"))
		}
		next := bytes.Repeat([]byte("new!"), testSize/4)
		for i := range next {
			place := ^f.control(slot).Load() & controlPlace
			f.place(slot, place)[i] = next[i]
			f, _ = reopen(t, f)
			check(t, f, map[int]string{slot: "the old record"})
		}
		f.Put(slot, next)
		f, _ = reopen(t, f)
		check(t, f, map[int]string{slot: string(next)})
	}
}

// TestDamageIsNoticed flips every bit of a record.
func TestDamageIsNoticed(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 10)
	slot := put(t, f, strings.Repeat("r", testSize))
	for bit := range (controlSize + testSize) * 8 {
		at := int(f.offset(slot))
		if bit >= controlSize*8 { // in the place that is current
			at += f.place1(slot)
		}
		f.mapped[at+bit/8] ^= 1 << (bit % 8)
		if data, ok := f.record(slot); ok {
			t.Fatalf("bit %d flipped: still a record, %q", bit, data)
		}
		f.mapped[at+bit/8] ^= 1 << (bit % 8)
	}
	check(t, f, map[int]string{slot: strings.Repeat("r", testSize)})

	other, err := f.Alloc()
	if err != nil {
		t.Fatal(err)
	}
	copy(f.mapped[f.offset(other):f.offset(other+1)], f.mapped[f.offset(slot):f.offset(slot+1)])
	f, logged := reopen(t, f)
	check(t, f, map[int]string{slot: strings.Repeat("r", testSize)}) // a copy in another slot is none
	if !strings.Contains(logged.String(), "records=1") {
		t.Errorf("log: %q", logged)
	}
}

// place1 returns how far the current place of a slot is from where place 0 is.
func (f *File) place1(slot int) int {
	if f.control(slot).Load()&controlPlace != 0 {
		return padded(f.recordSize)
	}
	return 0
}

func TestConcurrent(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "j"), testSize, 4*growth)
	var mu sync.Mutex
	want := map[int]string{}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			var slots []int
			for i := range 3000 {
				slot, err := f.Alloc()
				if err != nil {
					t.Error(err)
					return
				}
				data := binary.LittleEndian.AppendUint64(nil, uint64(worker)<<32|uint64(i))
				f.Put(slot, data)
				f.Put(slot, append(data, data...))
				if slots = append(slots, slot); len(slots) > 100 {
					f.Free(slots[0])
					slots = slots[1:]
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for i, slot := range slots {
				data := binary.LittleEndian.AppendUint64(nil, uint64(worker)<<32|uint64(3000-len(slots)+i))
				want[slot] = string(slices.Concat(data, data))
			}
		})
	}
	wg.Wait()
	check(t, f, want)
	f, _ = reopen(t, f)
	check(t, f, want)
	if len(want) != 800 || f.Used() != 800 {
		t.Errorf("%d records, %d in use; want 800", len(want), f.Used())
	}
}

func BenchmarkPut(b *testing.B) {
	f, _ := open(b, filepath.Join(b.TempDir(), "j"), 128, 10)
	slot := put(b, f, "x")
	data := bytes.Repeat([]byte{7}, 128)
	b.ReportAllocs()
	for b.Loop() {
		f.Put(slot, data)
	}
}
