package seccomp

import (
	"encoding/binary"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"appswitch.io/services/nodeagent/internal/procfs"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/launch/wire"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

// memfd makes a memory file with a content and seals.
func memfd(t testing.TB, size int64, content []byte, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); seals != 0 && err != nil {
		t.Fatal(err)
	}
	return fd
}

const allSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func magic() []byte { return binary.LittleEndian.AppendUint64(nil, wire.JournalMagic) }

// TestHostileHandover hands over what no launcher does: all of it is refused, logged and counted, and nothing is kept.
func TestHostileHandover(t *testing.T) {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	d := New(Config{}, Deps{Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: metrics, Table: socktab.New(nil, slog.New(slog.DiscardHandler))})
	other := func(name string) int {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	before := descriptors(t)
	for _, c := range []struct {
		what    string
		journal int
		want    string
	}{
		{"not sealed", memfd(t, wire.JournalSize, magic(), 0), "not a sealed memory file"},
		{"may shrink", memfd(t, wire.JournalSize, magic(), unix.F_SEAL_GROW|unix.F_SEAL_SEAL), "not a sealed memory file"},
		{"may get seals", memfd(t, wire.JournalSize, magic(), unix.F_SEAL_SHRINK|unix.F_SEAL_GROW), "not a sealed memory file"},
		{"no memory file", other("/proc/self/exe"), "not a sealed memory file"},
		{"a device", other("/dev/zero"), "not a sealed memory file"},
		{"empty", memfd(t, 0, nil, allSeals), "0 bytes"},
		{"truncated", memfd(t, wire.JournalSize-1, magic(), allSeals), "bytes, want"},
		{"too long", memfd(t, wire.JournalSize+4096, magic(), allSeals), "bytes, want"},
		{"of another version", memfd(t, wire.JournalSize, []byte("ax_jrnm\x00"), allSeals), "another format"},
		{"not to be written", memfd(t, wire.JournalSize, magic(), allSeals|unix.F_SEAL_WRITE), "map journal"},
		{"without a listener", memfd(t, wire.JournalSize, magic(), allSeals), "not one of seccomp"},
	} {
		log.Reset()
		err := d.Attach(App{}, Handover{Listener: other("/dev/zero"), Journal: c.journal, Ring: -1, Kept: []int{other("/dev/null")}}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("journal %s: %v, want %q", c.what, err, c.want)
		}
		if !strings.Contains(log.String(), c.want) {
			t.Errorf("journal %s: log %q, want %q", c.what, log.String(), c.want)
		}
	}
	if n := testutil.ToFloat64(metrics.HandoversRefused); n != 11 {
		t.Errorf("%v are counted, want 11", n)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestForgedOrphans: only what a thread really is in is taken up.
func TestForgedOrphans(t *testing.T) {
	n := sys.Notify{ID: 1, TID: 7, NR: unix.SYS_CONNECT, Args: [6]uint64{3, 4, 5, 6, 7, 8}}
	for _, c := range []struct {
		what string
		is   procfs.Syscall
		ok   bool
	}{
		{"the call", procfs.Syscall{NR: n.NR, Args: n.Args, Notified: true}, true},
		{"another call", procfs.Syscall{NR: unix.SYS_BIND, Args: n.Args, Notified: true}, false},
		{"another descriptor", procfs.Syscall{NR: n.NR, Args: [6]uint64{2, 4, 5, 6, 7, 8}, Notified: true}, false},
		{"the same call, made without a supervisor", procfs.Syscall{NR: n.NR, Args: n.Args}, false},
	} {
		if why := contradiction(&n, c.is); (why == "") != c.ok {
			t.Errorf("%s: %q", c.what, why)
		}
	}
}

// FuzzInflight opens journals of any content: slots are handed out once, and none that holds a call.
func FuzzInflight(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add(make([]byte, 3*wire.JournalSlotSize))
	f.Fuzz(func(t *testing.T, slots []byte) {
		slots = slots[:min(len(slots), wire.JournalSize-wire.JournalHeader)]
		content := append(append(magic(), make([]byte, wire.JournalHeader-8)...), slots...)
		fd := memfd(t, wire.JournalSize, content, allSeals)
		defer unix.Close(fd)
		j, err := openInflight(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		seen := map[int32]bool{}
		for _, slot := range j.orphans() {
			seen[slot] = true
		}
		if len(seen)+len(j.free) != wire.JournalSlots {
			t.Fatalf("%d orphans and %d free slots", len(seen), len(j.free))
		}
		for len(j.free) > 0 {
			slot, n := j.take()
			if seen[slot] || slot < 0 || slot >= wire.JournalSlots || n.ID != 0 {
				t.Fatalf("slot %d is handed out", slot)
			}
			seen[slot] = true
		}
		if slot, n := j.take(); slot != noSlot || n == nil {
			t.Fatalf("slot %d is handed out when all are taken", slot)
		}
		for slot := range seen {
			j.release(slot)
		}
		if len(j.orphans()) != 0 {
			t.Fatal("calls are left")
		}
	})
}

// FuzzMessage reads messages of any content, out of this process's memory in place of a caller's.
func FuzzMessage(f *testing.F) {
	good := make([]byte, sizeMsghdr)
	binary.NativeEndian.PutUint64(good[24:], 2)
	f.Add(good, []byte("0123456789abcdef0123456789abcdef"), uint16(0), uint16(4))
	f.Add(good[:8], []byte{}, uint16(1), uint16(1))
	f.Fuzz(func(t *testing.T, raw, memory []byte, at, length uint16) {
		hdr := make([]byte, sizeMsghdr)
		copy(hdr, raw)
		vec := make([]byte, 2*sizeIovec)
		copy(vec, memory)
		if len(memory) > 0 { // one piece that can be read
			binary.NativeEndian.PutUint64(vec, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory)))))
			binary.NativeEndian.PutUint64(vec[8:], uint64(length)%uint64(len(memory)+1))
		}
		if at%2 == 0 { // a vector that can be read
			binary.NativeEndian.PutUint64(hdr[16:], uint64(uintptr(unsafe.Pointer(unsafe.SliceData(vec)))))
			binary.NativeEndian.PutUint64(hdr[24:], uint64(at)%3)
		}
		c, task := &call{tid: uint32(os.Getpid())}, &task{}
		m, errno := readMessage(c, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(hdr)))))
		if errno != 0 {
			return
		}
		if len(m.spans) > maxIovecs {
			t.Fatalf("%d pieces", len(m.spans))
		}
		data, errno := task.gather(c, m.spans)
		if len(data) > maxDatagram || errno == syscall.ENOSYS {
			t.Fatalf("%d bytes, %v", len(data), errno)
		}
		runtime.KeepAlive(vec)
		runtime.KeepAlive(memory)
	})
}
