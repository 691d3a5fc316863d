package harness

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// labVar marks every process of a lab, through its environment, whatever becomes of its parents.
	labVar = "E2E_LAB"
	// guardVar tells the test binary the process id of its guardian.
	guardVar = "E2E_GUARD"
	// prefix starts the names of the labs' network namespaces and directories; the guardian's process id follows.
	prefix = "axlab-"
)

// Main runs the tests of a package and returns the exit status. The process that `go test` started stays behind as a
// guardian: it runs the tests in a child and removes what is left of the labs however the child ends.
func Main(m *testing.M) int {
	if os.Getenv(guardVar) != "" {
		status := m.Run()
		if err := goleak.Find(); status == 0 && err != nil {
			fmt.Fprintln(os.Stderr, "the harness itself leaks:", err)
			return 1
		}
		return status
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root: they make network namespaces. Run: sudo make e2e")
		return 1
	}
	for _, pid := range staleGuardians() {
		removeAll(pid)
	}
	status := guard()
	if left := removeAll(os.Getpid()); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left behind, now removed:\n  %s\n", strings.Join(left, "\n  "))
		status = max(status, 1)
	}
	return status
}

// guard runs this binary once more, passes signals on, and returns its exit status.
func guard() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), guardVar+"="+strconv.Itoa(os.Getpid()))
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "start the test binary again:", err)
		return 1
	}
	done := make(chan struct{})
	go func() { // its error is in ProcessState
		_ = cmd.Wait()
		close(done)
	}()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				_ = cmd.Process.Kill()
			}
		case <-done:
			if code := cmd.ProcessState.ExitCode(); code >= 0 {
				return code
			}
			fmt.Fprintln(os.Stderr, "the test binary ended by", cmd.ProcessState)
			return 1
		}
	}
}

// staleGuardians returns the process ids of guardians that died before they could clean up.
func staleGuardians() []int {
	names, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	var out []int
	seen := map[int]bool{}
	for _, name := range names {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), prefix), "-")
		pid, err := strconv.Atoi(text)
		if err != nil || seen[pid] || syscall.Kill(pid, 0) == nil {
			continue
		}
		seen[pid] = true
		out = append(out, pid)
	}
	return out
}

// removeAll removes every lab of a guardian and says what it found.
func removeAll(guardian int) []string {
	var found []string
	name := prefix + strconv.Itoa(guardian) + "-"
	for _, p := range processes(name) {
		found = append(found, "process "+p.String())
	}
	killProcesses(name)
	for _, m := range mounts(name) {
		found = append(found, "mount "+m)
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
	namespaces, _ := filepath.Glob(filepath.Join(netnsDir, name+"*"))
	for _, n := range namespaces {
		found = append(found, "network namespace "+filepath.Base(n))
		_ = exec.Command("ip", "netns", "del", filepath.Base(n)).Run()
	}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), name+"*"))
	for _, d := range dirs {
		found = append(found, "directory "+d)
		_ = os.RemoveAll(d)
	}
	return found
}
