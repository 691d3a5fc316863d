package procfs

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// start starts a program that runs until the end of the test.
func start(t *testing.T, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestOpenSelf(t *testing.T) {
	done := make(chan struct{})
	tids := make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tids <- unix.Gettid()
		<-done
	}()
	defer close(done)
	for _, tid := range []int{os.Getpid(), <-tids} {
		task, err := Open(tid)
		if err != nil {
			t.Fatal(err)
		}
		defer task.Close()
		if task.TID != tid || task.TGID != os.Getpid() || task.UID != uint32(os.Getuid()) || task.EUID != uint32(os.Geteuid()) ||
			task.GID != uint32(os.Getgid()) || task.EGID != uint32(os.Getegid()) {
			t.Errorf("%+v is not us", task)
		}
		if err := unix.PidfdSendSignal(task.PIDFD, 0, nil, 0); err != nil {
			t.Errorf("pidfd of %d: %v", tid, err)
		}
	}
}

func TestOpenGone(t *testing.T) {
	cmd := start(t, nil)
	task, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := alive(task.PIDFD); !errors.Is(err, unix.ESRCH) {
		t.Errorf("task is gone: %v", err)
	}
	task.Close()
	task.Close()
	if _, err := Open(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("Open of a task that is gone: %v", err)
	}
	for _, tid := range []int{0, -1, 1 << 30} {
		if task, err := Open(tid); err == nil {
			t.Errorf("Open(%d) = %+v", tid, task)
		}
	}
}

// TestIdentifyNoticesReuse gives identify the pidfd of a process that has ended while its id belongs to another.
func TestIdentifyNoticesReuse(t *testing.T) {
	cmd := start(t, nil)
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if task, err := identify(os.Getpid(), pidfd); !errors.Is(err, unix.ESRCH) {
		t.Errorf("identify = %+v, %v; want ESRCH", task, err)
	}
}

// TestOpenProcess is the way of kernels before 6.9.
func TestOpenProcess(t *testing.T) {
	cmd := start(t, nil)
	task, err := openProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer task.Close()
	if task.TID != cmd.Process.Pid || task.TGID != cmd.Process.Pid {
		t.Errorf("%+v", task)
	}
	if err := alive(task.PIDFD); err != nil {
		t.Errorf("pidfd: %v", err)
	}
	if _, err := openProcess(1 << 30); !errors.Is(err, unix.ESRCH) {
		t.Errorf("openProcess of none: %v", err)
	}
}

func TestNamespaces(t *testing.T) {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd := start(t, attr)
	for name, get := range map[string]func(int) (dev, ino uint64, err error){"net": NetnsInode, "user": UsernsInode} {
		dev, ino, err := get(os.Getpid())
		if err != nil || dev == 0 || ino == 0 {
			t.Errorf("%s namespace of ours: %d, %d, %v", name, dev, ino, err)
		}
		if d, i, err := get(os.Getppid()); d != dev || i != ino || err != nil {
			t.Errorf("%s namespace of the parent: %d, %d, %v; want %d, %d", name, d, i, err, dev, ino)
		}
		if d, i, err := get(cmd.Process.Pid); d != dev || i == ino || err != nil {
			t.Errorf("%s namespace of the child: %d, %d, %v; want another one", name, d, i, err)
		}
		if _, _, err := get(1 << 30); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s namespace of none: %v", name, err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	good := "Name:\tx\nTgid:\t12\nPid:\t13\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nrest"
	task, err := parseStatus([]byte(good))
	if want := (Task{TGID: 12, PIDFD: -1, UID: 1, EUID: 2, GID: 5, EGID: 6}); task != want || err != nil {
		t.Errorf("%+v, %v; want %+v", task, err, want)
	}
	for name, bad := range map[string]string{
		"empty":         "",
		"Uid missing":   "Tgid:\t12\nGid:\t5\t6\t7\t8\n",
		"Gid missing":   "Tgid:\t12\nUid:\t1\t2\t3\t4\n",
		"Tgid missing":  "Gid:\t5\t6\t7\t8\nUid:\t1\t2\t3\t4\n",
		"no number":     strings.Replace(good, "12", "x", 1),
		"negative":      strings.Replace(good, "12", "-1", 1),
		"one uid only":  strings.Replace(good, "\t1\t2\t3\t4", "\t1", 1),
		"no uid at all": strings.Replace(good, "\t1\t2\t3\t4", "", 1),
	} {
		if task, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", name, task)
		}
	}
}
