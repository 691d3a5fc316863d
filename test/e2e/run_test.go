//go:build e2e

package e2e

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// TestRunIsTransparent: a program behaves under `ax run` as it does without.
func TestRunIsTransparent(t *testing.T) {
	lab := node(t)
	for _, c := range []struct {
		what, line, script string
	}{
		{"exit status", "sh -c", "exit 42"},
		{"success", "sh -c", "true"},
		{"standard output and error", "sh -c", "echo out; echo err >&2"},
		{"death by a signal", "sh -c", "kill -TERM $$"},
		{"death by SIGKILL", "sh -c", "kill -KILL $$"},
		{"descriptors", "sh -c", "ls -1 /proc/self/fd | tr '\n' ' '"},
		{"working directory", "sh -c", "pwd"},
		{"file mode mask", "sh -c", "umask"},
		{"signals ignored or blocked", "sh -c", "grep -E '^Sig(Blk|Ign)' /proc/self/status"},
		{"limits", "sh -c", "ulimit -a"},
		{"session and group", "sh -c", "test $(ps -o pgid= -p $$) = $$ && echo leads its group"},
		{"user and groups", "id", ""},
		{"options of the program", "echo --ip -x --labels", "a=b"},
		{"capabilities", "sh -c", "grep ^CapEff /proc/self/status"},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "-"), func(t *testing.T) {
			lab := lab.In(t)
			args := []string{}
			if c.script != "" {
				args = append(args, c.script)
			}
			want := lab.Run(c.line, args...)
			for _, run := range []string{"ax run -- ", "ax run ", "ax run --new-netns=false -- "} {
				if got := lab.Run(run+c.line, args...); got != want {
					t.Errorf("%s%s %q: %+v, natively %+v", run, c.line, args, got, want)
				}
			}
		})
	}
}

// TestRunInheritsSignals: what is ignored stays ignored (nohup, and shells in the background do this).
func TestRunInheritsSignals(t *testing.T) {
	lab := node(t)
	const ignore = "trap '' HUP INT QUIT PIPE; exec "
	const look = "grep -E '^Sig(Ign|Blk)' /proc/self/status"
	want := lab.Output("sh -c", ignore+look)
	equal(t, "signals", lab.Output("sh -c", ignore+"ax run -- "+look), want)
}

// TestRunEnvironment: nothing is added to the program's environment.
func TestRunEnvironment(t *testing.T) {
	lab := node(t)
	equal(t, "environment", lab.Output("ax run -- env -u _ -u PWD -u SHLVL"), lab.Output("env -u _ -u PWD -u SHLVL"))
}

// TestRunProcess: the program is the process that was started, so that signals and supervisors find it.
func TestRunProcess(t *testing.T) {
	lab := node(t)
	p := lab.Start("ax run -- sh -c", "echo $$; exec sleep 60")
	lab.Eventually(runLimit, "the program runs", func() error { return wantText(p.Stdout(), true) })
	equal(t, "process id", strings.TrimSpace(p.Stdout()), strconv.Itoa(p.PID()))
	p.Signal(syscall.SIGINT)
	if r := p.Wait(runLimit); r.Code != 128+int(syscall.SIGINT) {
		t.Errorf("after SIGINT: %d", r.Code)
	}
	trap := lab.Start("ax run -- sh -c", "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
	lab.Eventually(runLimit, "the program runs", func() error { return wantText(trap.Stdout(), true) })
	trap.Signal(syscall.SIGTERM)
	if r := trap.Wait(runLimit); r.Code != 7 || !strings.Contains(r.Stdout, "caught") {
		t.Errorf("a caught SIGTERM: %+v", r)
	}
}

// TestRunPipes: nobody keeps the program's input and output open after it has ended.
func TestRunPipes(t *testing.T) {
	lab := node(t)
	began := time.Now()
	equal(t, "output through a pipe", lab.Output("sh -c", "ax run -- echo through | cat"), "through")
	p := lab.StartCmd(harness.Cmd{Args: []string{"ax", "run", "--", "cat"}, Stdin: strings.NewReader("input\n")})
	equal(t, "standard input", p.Wait(runLimit).Stdout, "input\n")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v: something keeps the pipe open", took)
	}
}

// TestRunTerminal: the program has the terminal, its size, and its interrupt key.
func TestRunTerminal(t *testing.T) {
	lab := node(t)
	p := lab.StartCmd(harness.Cmd{TTY: true, Args: []string{"ax", "run", "--", "sh", "-c", "tty; test -t 0 && test -t 1 && echo yes; exec sleep 60"}})
	lab.Eventually(runLimit, "the program runs", func() error { return wantText(p.Stdout(), strings.Contains(p.Stdout(), "yes")) })
	lab.Eventually(runLimit, "the program says so", func() error { return wantText(strings.Trim(p.Stdout(), "\r\n"), true) })
	contains(t, "tty", p.Stdout(), "/dev/pts/")
	p.Type("\x03")
	if r := p.Wait(runLimit); r.Code != 128+int(syscall.SIGINT) {
		t.Errorf("after the interrupt key: %d\n%s", r.Code, r.Stdout)
	}
}

// TestRunErrors: what can't be run ends as in a shell, and a mistake in the options with 2 and a word on what was meant.
func TestRunErrors(t *testing.T) {
	lab := node(t)
	for _, c := range []struct {
		line string
		code int
		text string
	}{
		{"ax run -- /no/such/program", 127, "/no/such/program"},
		{"ax run -- no-such-program", 127, "no-such-program"},
		{"ax run -- /etc/passwd", 126, "/etc/passwd"},
		{"ax run --curl -I 1.1.1.1", 2, "ax run -- curl"},
		{"ax run --ip 1.1.1 -- true", 2, "1.1.1"},
		{"ax run --labels role -- true", 2, "role"},
		{"ax run --user no-such-user -- true", 2, "no-such-user"},
		{"ax run --interface eth0 --new-netns=false -- true", 2, "--interface"},
	} {
		r := lab.Run(c.line)
		if r.Code != c.code {
			t.Errorf("%s: exit status %d, want %d\n%s", c.line, r.Code, c.code, r.Stderr)
		}
		contains(t, c.line, r.Stderr, c.text)
	}
}

func TestRunUser(t *testing.T) {
	lab := node(t)
	for _, user := range []string{"nobody", lab.Output("id -u nobody")} {
		equal(t, "--user "+user, lab.Output("ax run --user "+user+" -- id"), lab.Output("setpriv --reuid nobody --regid nogroup --init-groups id"))
	}
	serve(lab, "1.1.1.1", "a", "")
	lab.Serving("1.1.1.1:80", 1)
	equal(t, "the network of another user", lab.Output("ax run --user nobody -- curl -sS --max-time 10 http://1.1.1.1/"), "a")
}

// TestRunUnprivileged: a normal user needs no privilege with --new-netns=false, and gets a namespace of his own by a user
// namespace otherwise.
func TestRunUnprivileged(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "a", "")
	lab.Serving("1.1.1.1:80", 1)
	const nobody = "setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all "
	equal(t, "--new-netns=false", lab.Output(nobody+"ax run --new-netns=false -- curl -sS --max-time 10 http://1.1.1.1/"), "a")
}

// TestRunNamespace: a network namespace of its own, with the application's address, unless told otherwise.
func TestRunNamespace(t *testing.T) {
	lab := node(t)
	host := lab.Output("readlink /proc/self/ns/net")
	if inside := lab.Output("ax run -- readlink /proc/self/ns/net"); inside == host {
		t.Error("the program is in the host's network namespace")
	}
	equal(t, "--new-netns=false", lab.Output("ax run --new-netns=false -- readlink /proc/self/ns/net"), host)
	equal(t, "--no-new-netns", lab.Output("ax run --no-new-netns -- readlink /proc/self/ns/net"), host)
	lo := lab.Output("ax run --ip 1.2.3.4 -- ip -4 -brief addr")
	contains(t, "interfaces", lo, "127.0.0.1/8")
	contains(t, "interfaces", lo, "1.2.3.4/32")
	if lines := harness.Lines(lo); len(lines) != 1 {
		t.Errorf("interfaces: %q, want lo alone", lines)
	}
	eth0 := lab.Output("ax run --ip 1.2.3.4 --interface eth0 -- ip -4 -brief addr show eth0")
	contains(t, "--interface eth0", eth0, "1.2.3.4/32")
	contains(t, "--interface eth0", lab.Output("ax run --interface eth0 -- ip link show eth0"), ",UP")
}

// TestRunWithoutDaemon: it says what is wrong and how to mend it.
func TestRunWithoutDaemon(t *testing.T) {
	lab := harness.New(t)
	r := lab.Run("ax run -- true")
	if r.Code == 0 || !strings.Contains(r.Stderr, "ax daemon") {
		t.Errorf("without a daemon: %+v, want a failure that names `ax daemon`", r)
	}
	if _, err := os.Stat(lab.RunDir()); err != nil {
		t.Error(err)
	}
}
