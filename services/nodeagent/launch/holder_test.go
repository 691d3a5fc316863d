package launch_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/services/nodeagent/launch/wire"
)

// asker is a program that makes a socket for every line it reads, and prints the error's number.
const asker = `import socket, sys
for line in sys.stdin:
    try:
        socket.socket()
    except OSError as e:
        print(e.errno, flush=True)`

type session struct {
	t   *testing.T
	cmd *exec.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Reader
}

// converse starts the asker under `ax run`.
func converse(t *testing.T, dir string, args ...string) *session {
	t.Helper()
	return start(t, ax(t, dir, append(append([]string{"run"}, args...), "python3", "-c", asker)...))
}

func start(t *testing.T, c *exec.Cmd) *session {
	t.Helper()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s := &session{t, c, in, bufio.NewReader(out)}
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return s
}

func (s *session) begin() {
	s.t.Helper()
	if _, err := s.in.Write([]byte("\n")); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) expect(want syscall.Errno) {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != strconv.Itoa(int(want)) {
		s.t.Fatalf("socket() gave %q, %v; want %d (%v)", line, err, int(want), want)
	}
}

func (s *session) ask(want syscall.Errno) {
	s.t.Helper()
	s.begin()
	s.expect(want)
}

// holderOf waits for a program's holder.
func holderOf(t *testing.T, appID string) string {
	t.Helper()
	var found []string
	within(t, "the holder", func() bool {
		found = holders(t, appID)
		return len(found) == 1
	})
	return "/proc/" + found[0]
}

func attachedHolders(a *fakeAgent) int {
	n := 0
	for _, at := range a.attaches {
		if at.Holder {
			n++
		}
	}
	return n
}

// TestRestart kills the agent while a call is in flight: the holder brings the program to the next one.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	s := converse(t, dir)
	s.ask(errVerdict)
	id := a.appID()
	a.wait("the holder to attach", func() bool { return attachedHolders(a) == 1 })
	for round := range 3 {
		a.stop()
		s.begin() // nobody is there: the call waits
		time.Sleep(20 * time.Millisecond)
		a = startAgent(t, dir, nil)
		s.expect(errVerdict)
		a.wait("the holder to attach again", func() bool { return attachedHolders(a) == 1 })
		if at := a.attaches[0]; at.AppID != id || at.Token != "secret" || at.PID != s.cmd.Process.Pid || at.Hello.Command[0] != "python3" {
			t.Errorf("round %d: the holder attaches with %+v", round, at)
		}
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	noHolders(t, id)
}

// TestAgentAway lets the agent die for longer than programs wait: calls fail, those in its journal too, until one is
// back.
func TestAgentAway(t *testing.T) {
	dir := t.TempDir()
	const timeout = 300 * time.Millisecond
	a := startAgent(t, dir, func(a *fakeAgent) {
		a.welcome.AgentTimeout = int(timeout.Milliseconds())
		a.verdict = func(n notification) syscall.Errno {
			if n.Nr == syscall.SYS_SOCKET {
				return errUnanswered
			}
			return errGoOn
		}
	})
	s := converse(t, dir)
	id := a.appID()
	s.begin()
	a.wait("the call to be received", func() bool { return a.served >= 1 })
	a.wait("the holder to attach", func() bool { return attachedHolders(a) == 1 })
	a.stop()
	died := time.Now()
	s.expect(syscall.ENETDOWN) // it was in the journal
	if waited := time.Since(died); waited < timeout {
		t.Errorf("the call failed after %v, want at least %v", waited, timeout)
	}
	s.ask(syscall.ENETDOWN) // new ones fail at once
	s.ask(syscall.ENETDOWN)

	// An agent that doesn't know the program is like none; neither is one that doesn't answer.
	a = startAgent(t, dir, func(a *fakeAgent) {
		a.deny = &wire.Error{Code: wire.CodeUnknownApp, Message: "unknown"}
	})
	a.wait("the holder to try", func() bool { return len(a.conns) > 0 })
	s.ask(syscall.ENETDOWN)
	a.stop()
	a = startAgent(t, dir, func(a *fakeAgent) { a.mute = true })
	a.wait("the holder to try", func() bool { return attachedHolders(a) > 0 })
	s.ask(syscall.ENETDOWN)
	a.stop()

	a = startAgent(t, dir, nil)
	a.wait("the holder to attach", func() bool { return attachedHolders(a) == 1 })
	within(t, "the program to be served", func() bool {
		s.begin()
		line, err := s.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line) == strconv.Itoa(int(errVerdict))
	})
	_ = s.cmd.Process.Kill()
	noHolders(t, id)
}

// TestStuckAgent: an agent that accepts and says nothing doesn't keep a holder from ending with its program.
func TestStuckAgent(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	s := converse(t, dir)
	s.ask(errVerdict)
	id := a.appID()
	holderOf(t, id)
	a.stop()
	a = startAgent(t, dir, func(a *fakeAgent) { a.mute = true })
	a.wait("the holder to try", func() bool { return attachedHolders(a) > 0 })
	_ = s.cmd.Process.Kill()
	noHolders(t, id)
}

// TestHolderProcess looks at what a holder is made of.
func TestHolderProcess(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	c := ax(t, dir, "run", "sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	a.wait("the holder to attach", func() bool { return attachedHolders(a) == 1 })
	id := a.appID()
	proc := holderOf(t, id)
	within(t, "a small holder", func() bool { return field(t, proc+"/status", "VmRSS:") < maxHolderKB })
	t.Logf("VmRSS %d kB, Pss %d kB, %d threads", field(t, proc+"/status", "VmRSS:"), field(t, proc+"/smaps_rollup", "Pss:"),
		field(t, proc+"/status", "Threads:"))
	if n := field(t, proc+"/status", "Seccomp:"); n != 0 && n == field(t, fmt.Sprintf("/proc/%d/status", c.Process.Pid), "Seccomp:") {
		t.Errorf("the holder is filtered")
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("the holder is in %s, %v", cwd, err)
	}
	if comm, err := os.ReadFile(proc + "/comm"); err != nil || string(comm) != "ax-holder\n" {
		t.Errorf("the holder is called %q, %v", comm, err)
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		link, err := os.Readlink(proc + "/fd/" + fd.Name())
		known := link == "/dev/null" || link == "anon_inode:seccomp notify" || link == "anon_inode:[io_uring]" || strings.HasPrefix(link, "/memfd:ax-journal") ||
			strings.HasPrefix(link, "socket:") || strings.HasPrefix(link, "/sys/fs/cgroup/") // the runtime's
		if err != nil || !known {
			t.Errorf("the holder has descriptor %s: %s, %v", fd.Name(), link, err)
		}
	}
	// Not dumpable: its files in /proc belong to root whoever it runs as, and nobody but root can trace it.
	for _, ns := range []string{"net", "mnt"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(proc + "/ns/" + ns); err != nil || got != own {
			t.Errorf("the holder is in %s, %v; want %s", got, err, own)
		}
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(proc, "/proc/"))
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGUSR1} {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	if got := holders(t, id); len(got) != 1 {
		t.Fatalf("holders after signals: %v", got)
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	noHolders(t, id)
}

// field returns the number after a word in a file of /proc; 0 if it isn't there.
func field(t *testing.T, path, name string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(b))
	for i, w := range words {
		if w == name && i+1 < len(words) {
			n, _ := strconv.Atoi(words[i+1])
			return n
		}
	}
	return 0
}
