package procfs

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParent(t *testing.T) {
	cmd := start(t, nil)
	if parent, err := Parent(cmd.Process.Pid); err != nil || parent != os.Getpid() {
		t.Errorf("got %d, %v, want %d", parent, err, os.Getpid())
	}
	if _, err := Parent(1 << 30); err == nil {
		t.Error("no such process has a parent")
	}
}

// TestRelative starts a process that is number 1 of a namespace of its own.
func TestRelative(t *testing.T) {
	if pid, err := Relative(os.Getpid(), 17); err != nil || pid != 17 {
		t.Errorf("in the same namespace: %d, %v", pid, err)
	}
	cmd := start(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	inside := cmd.Process.Pid
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		comm, err := os.ReadFile("/proc/" + strconv.Itoa(inside) + "/comm")
		if err == nil && strings.TrimSpace(string(comm)) == "sleep" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, %v", comm, err)
		}
	}
	if pid, err := Relative(inside, 1); err != nil || pid != inside {
		t.Errorf("its number 1 is %d, %v, want %d", pid, err, inside)
	}
	if pid, err := Relative(inside, os.Getpid()); !errors.Is(err, unix.ESRCH) {
		t.Errorf("it has no number %d, got %d, %v", os.Getpid(), pid, err)
	}
}

func TestCapable(t *testing.T) {
	if is, err := Capable(os.Getpid(), unix.CAP_SYS_ADMIN); err != nil || is != (os.Geteuid() == 0) {
		t.Errorf("this process: %v, %v", is, err)
	}
	cmd := start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	if is, err := Capable(cmd.Process.Pid, unix.CAP_SYS_ADMIN); err != nil || is {
		t.Errorf("a process of nobody: %v, %v", is, err)
	}
}
