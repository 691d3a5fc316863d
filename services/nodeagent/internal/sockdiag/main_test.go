package sockdiag

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

const insideVar = "SOCKDIAG_TEST_NETNS"

// TestMain runs the tests in a network namespace of their own: events of all sockets of a namespace reach all monitors,
// and other tests that use the network at the same time would overrun a queue that is short on purpose.
func TestMain(m *testing.M) {
	if os.Getenv(insideVar) != "" {
		if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
			fmt.Fprintln(os.Stderr, "set lo up:", err)
			os.Exit(1)
		}
		goleak.VerifyTestMain(m)
		return
	}
	inside := exec.Command("/proc/self/exe", os.Args[1:]...)
	inside.Env = append(os.Environ(), insideVar+"=1")
	inside.Stdin, inside.Stdout, inside.Stderr = os.Stdin, os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := inside.Run(); inside.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "the tests need root, for a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(inside.ProcessState.ExitCode())
}
