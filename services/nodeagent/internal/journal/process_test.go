package journal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// A process of its own plays the agent that is killed, or whose file system is full.
const (
	childEnv = "JOURNAL_TEST_CHILD"
	killSize = 1024
	killed   = 8 // slots that are written all the time
)

func TestMain(m *testing.M) {
	var err error
	switch path := os.Getenv(childEnv + "_PATH"); os.Getenv(childEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "write":
		err = writeForever(path)
	case "full":
		err = fillUp(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+what, childEnv+"_PATH="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// pattern is a record that shows whether it is whole.
func pattern(n uint64) []byte {
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), 1+int(n%(killSize/8)))
}

// writeForever tells after each round which one it was.
func writeForever(path string) error {
	f, err := Open(path, killSize, 2*killed, discard())
	if err != nil {
		return err
	}
	for range killed {
		if _, err := f.Alloc(); err != nil {
			return err
		}
	}
	for n := uint64(1); ; n++ {
		for slot := range killed {
			f.Put(slot, pattern(n))
		}
		if _, err := fmt.Println(n); err != nil {
			return err
		}
	}
}

func TestKilledWriter(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "j")
		cmd := child(t, "write", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("the writer does not write")
		}
		timer := time.AfterFunc(time.Duration(round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		told := lines.Text()
		for lines.Scan() {
			told = lines.Text()
		}
		timer.Stop()
		if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		last, err := strconv.ParseUint(told, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		f, logged := open(t, path, killSize, 2*killed)
		records := load(f)
		if len(records) != killed || logged.Len() > 0 {
			t.Errorf("%d records, want %d; log: %s", len(records), killed, logged)
		}
		for slot, data := range records {
			n := binary.LittleEndian.Uint64([]byte(data))
			if data != string(pattern(n)) || n < last {
				t.Errorf("slot %d holds record %d of %d bytes after %d was written", slot, n, len(data), last)
			}
		}
		f.Close()
	}
}

// fillUp uses the file system's space up; touching a page without space would kill it.
func fillUp(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	path := filepath.Join(dir, "j")
	f, err := Open(path, killSize, 1<<16, discard())
	if err != nil {
		return err
	}
	if _, err := f.Alloc(); !errors.Is(err, ErrFull) || !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("1 MB for the first %d slots is enough: %w", growth, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if f, err = Open(path, 128, 1<<16, discard()); err != nil {
		return err
	}
	for n := 0; ; n++ {
		slot, err := f.Alloc()
		if errors.Is(err, ErrFull) && errors.Is(err, unix.ENOSPC) && n >= growth {
			break
		}
		if err != nil {
			return fmt.Errorf("slot %d: %w", n, err)
		}
		f.Put(slot, bytes.Repeat([]byte{byte(n)}, 128))
	}
	used := f.Used()
	f.Free(0)
	if _, err := f.Alloc(); err != nil {
		return err
	}
	if f.Used() != used {
		return fmt.Errorf("%d in use after a slot was handed out again, want %d", f.Used(), used)
	}
	return f.Close()
}

func TestFileSystemIsFull(t *testing.T) {
	cmd := child(t, "full", t.TempDir())
	// Its mounts are its own and end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}
