package procfs

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseSyscall(t *testing.T) {
	got, err := parseSyscall([]byte("43 0x3 0x7ffd1 0xffffffffffffffff 0x0 0x10 0x6 0x7ffe 0x7f00\n"))
	if want := (Syscall{NR: 43, Args: [6]uint64{3, 0x7ffd1, 1<<64 - 1, 0, 16, 6}}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "running\n", "-1 0x7ffe 0x7f00\n", "x 0x3 0x1 0x2 0x3 0x4 0x5", "43 0x3 0x1", "43 0x3 0x1 0x2 0x3 0x4 g", "9999999999 0 0 0 0 0 0"} {
		if got, err := parseSyscall([]byte(bad)); err == nil {
			t.Errorf("%q: %+v, want an error", bad, got)
		}
	}
}

// TestSyscallOf looks at a thread that sleeps in a read, which is no notification.
func TestSyscallOf(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	tid, ended := make(chan int), make(chan struct{})
	fd := int(r.Fd()) // blocking from here on
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		_, _ = unix.Read(fd, make([]byte, 1))
	}()
	thread := <-tid
	var s Syscall
	for range 1000 {
		if s, err = SyscallOf(thread); err == nil && s.NR == unix.SYS_READ {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.Close()
	<-ended
	if err != nil || s.NR != unix.SYS_READ || s.Args[0] != uint64(fd) || s.Args[2] != 1 {
		t.Errorf("%+v, %v; want a read of 1 byte from %d", s, err, fd)
	}
	if _, err := SyscallOf(1 << 30); err == nil {
		t.Error("a thread that isn't there is in a call")
	}
}

func FuzzParseSyscall(f *testing.F) {
	f.Add([]byte("43 0x3 0x7ffd1 0x10 0x0 0x10 0x6 0x7ffe 0x7f00\n"))
	f.Add([]byte("running"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSyscall(b); err != nil && s.Args != [6]uint64{} {
			t.Errorf("%q: %+v with %v", b, s, err)
		}
	})
}
