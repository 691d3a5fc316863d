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
)

func TestInit(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	for _, tt := range []struct {
		name, script, stdout string
		code                 int
	}{
		{"exit code", "exit 7", "", 7},
		{"output", "echo hi", "hi\n", 0},
		{"killed", "kill -TERM $$", "", 128 + 15},
		{"not its child", "ps -o comm= -p $PPID; kill -0 $PPID && exit 3", "", 3},
		{"orphans", "(sleep 0.05 &) ; sleep 0.2; exit 4", "", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, ax(t, dir, "run", "--init", "sh", "-c", tt.script))
			if r.code != tt.code || !strings.Contains(r.stdout, tt.stdout) || r.stderr != "" {
				t.Errorf("%+v, want %d, %q", r, tt.code, tt.stdout)
			}
		})
	}
	list := []string{"sh", "-c", "for fd in /proc/self/fd/*; do test -e $fd && echo $fd; done"}
	native := run(t, exec.CommandContext(t.Context(), list[0], list[1:]...))
	for _, option := range []string{"--init", "--init=false"} {
		if r := run(t, ax(t, dir, append([]string{"run", option}, list...)...)); r != native {
			t.Errorf("%s: the program has descriptors %+v, natively %+v", option, r, native)
		}
	}
	if r := run(t, ax(t, dir, "run", "--init", "no-such-program")); r.code != 127 {
		t.Errorf("unknown program: %+v", r)
	}
	noHolders(t, a.appID())
}

// TestInitForwards sends signals to the parent; the program reports them.
func TestInitForwards(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	c := ax(t, dir, "run", "--init", "sh", "-c", `trap 'echo usr1' USR1; trap 'echo usr2' USR2; trap 'echo term; exit 9' TERM
echo ready; while :; do sleep 0.01; done`)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("%q, want %q", lines.Text(), want)
		}
	}
	expect("ready")
	for _, s := range []struct {
		signal syscall.Signal
		word   string
	}{{syscall.SIGUSR1, "usr1"}, {syscall.SIGUSR2, "usr2"}, {syscall.SIGTERM, "term"}} {
		if err := c.Process.Signal(s.signal); err != nil {
			t.Fatal(err)
		}
		expect(s.word)
	}
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != 9 {
		t.Errorf("%v", c.ProcessState)
	}
	// The parent was the holder, and spoke for the program.
	if attachedHolders(a) != 1 {
		t.Errorf("attached: %+v", a.attaches)
	}
	if at := a.attaches[0]; at.PID == c.Process.Pid || at.PID == 0 {
		t.Errorf("the program is %d, its parent %d", at.PID, c.Process.Pid)
	}
}

// TestInitDies: without its parent the program doesn't linger.
func TestInitDies(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	c := ax(t, dir, "run", "--init", "sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	a.wait("the program to start", func() bool { return attachedHolders(a) == 1 })
	program := fmt.Sprintf("/proc/%d/comm", a.attaches[0].PID)
	within(t, "the program", func() bool { b, _ := os.ReadFile(program); return string(b) == "sleep\n" })
	_ = c.Process.Kill()
	_ = c.Wait()
	within(t, "the program's end", func() bool {
		_, err := os.Stat(program)
		return err != nil
	})
}

// TestInitDaemon: a descendant that outlives the program keeps a holder.
func TestInitDaemon(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	c := ax(t, dir, "run", "--init", "sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & echo $!")
	r := run(t, c)
	daemon, err := strconv.Atoi(strings.TrimSpace(r.stdout))
	if r.code != 0 || r.stderr != "" || err != nil {
		t.Fatalf("%+v", r)
	}
	holderOf(t, a.appID())
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	noHolders(t, a.appID())
}

// asNobody prepares a command of a user without privileges.
func asNobody(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	c := ax(t, dir, args...)
	c.Path = worldExecutable(t)
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return c
}

const nobody = 65534

// worldExecutable copies the test binary to where every user can run it.
func worldExecutable(t *testing.T) string {
	t.Helper()
	path := openDir(t) + "/ax"
	// Not in a single write: the page cache would hold it in pages of 2 MB, each of which counts as a whole.
	if out, err := exec.CommandContext(t.Context(), "cp", self(t), path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// openDir is a directory that every user can look into.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ax")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWithoutPrivileges(t *testing.T) {
	dir := openDir(t)
	a := startAgent(t, dir, nil)
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"user", []string{"id", "-u"}, 0, strconv.Itoa(nobody) + "\n", ""},
		{"exit code", []string{"sh", "-c", "exit 5"}, 5, "", ""},
		{"address", []string{"ip", "-o", "addr"}, 0, "inet 198.18.0.7/32", ""},
		{"device", []string{"--interface", "ax0", "ip", "-o", "addr"}, 0, "ax0", ""},
		{"no capabilities", []string{"grep", "CapEff", "/proc/self/status"}, 0, "CapEff:\t0000000000000000\n", ""},
		{"no ambient ones", []string{"grep", "CapAmb", "/proc/self/status"}, 0, "CapAmb:\t0000000000000000\n", ""},
		{"served", []string{"python3", "-c", "import socket\ntry: socket.socket()\nexcept OSError as e: print(e.errno)"}, 0, "18\n", ""},
		{"init", []string{"--init", "sh", "-c", "exit 6"}, 6, "", ""},
		{"another user", []string{"--user", "root", "true"}, 125, "", "only root may run programs as another user"},
		{"present namespace", []string{"--new-netns=false", "sh", "-c", "exit 8"}, 8, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, asNobody(t, dir, append([]string{"run"}, tt.args...)...))
			if r.code != tt.code || !strings.Contains(r.stdout, tt.stdout) || !strings.Contains(r.stderr, tt.stderr) || tt.stderr == "" && r.stderr != "" {
				t.Errorf("%+v, want %d, %q, %q", r, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
	noHolders(t, a.appID())
}

// TestRestartWithoutPrivileges: the parent brings the program to a new agent.
func TestRestartWithoutPrivileges(t *testing.T) {
	dir := openDir(t)
	a := startAgent(t, dir, nil)
	c := asNobody(t, dir, "run", "python3", "-c", asker)
	s := start(t, c)
	s.ask(errVerdict)
	a.wait("the parent to attach", func() bool { return attachedHolders(a) == 1 })
	within(t, "a small parent", func() bool {
		return field(t, fmt.Sprintf("/proc/%d/status", c.Process.Pid), "VmRSS:") < maxHolderKB
	})
	t.Logf("VmRSS %d kB", field(t, fmt.Sprintf("/proc/%d/status", c.Process.Pid), "VmRSS:"))
	a.stop()
	s.begin()
	time.Sleep(20 * time.Millisecond)
	a = startAgent(t, dir, nil)
	s.expect(errVerdict)
}

// TestContainer: where no namespace may be made and the agent is elsewhere, the program stays where it is.
func TestContainer(t *testing.T) {
	dir := openDir(t)
	a := startAgent(t, dir, func(a *fakeAgent) { a.welcome.Netns = "net:[1]" })
	r := run(t, asNobody(t, dir, "run", "readlink", "/proc/self/ns/net"))
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if r.code != 0 || r.stdout != own+"\n" || r.stderr != "" {
		t.Errorf("%+v, want %s", r, own)
	}
	if at := a.attaches[0]; at.Hello.NewNetns {
		t.Errorf("the agent is told of a new namespace: %+v", at)
	}
	r = run(t, asNobody(t, dir, "run", "--interface", "ax0", "true"))
	if r.code != 125 || !strings.Contains(r.stderr, "--interface ax0 needs a new network namespace") {
		t.Errorf("%+v", r)
	}
	noHolders(t, a.appID())
}
