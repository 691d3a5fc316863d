package join

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunChild(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -KILL $$": 137} {
		if code, err := runChild(exec.Command("sh", "-c", script)); err != nil || code != want {
			t.Errorf("%s: %d, %v, want %d", script, code, err, want)
		}
	}
	// What this process is told to do, the command is told.
	script := "trap 'exit 9' TERM; kill -TERM " + strconv.Itoa(os.Getpid()) + "; while :; do sleep 0.01; done"
	if code, err := runChild(exec.Command("sh", "-c", script)); err != nil || code != 9 {
		t.Errorf("SIGTERM: %d, %v, want 9", code, err)
	}
	if _, err := runChild(exec.Command("/nonexistent")); err == nil {
		t.Error("a command that is not there was run")
	}
}

func TestDiffer(t *testing.T) {
	if differs, err := differ(os.Getpid(), "uts"); err != nil || differs {
		t.Errorf("the own one: %v, %v", differs, err)
	}
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWUTS}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	if differs, err := differ(other.Process.Pid, "uts"); err != nil || !differs {
		t.Errorf("another one: %v, %v", differs, err)
	}
	if _, err := differ(1<<30, "uts"); err == nil {
		t.Error("a process that is not there has a namespace")
	}
}
