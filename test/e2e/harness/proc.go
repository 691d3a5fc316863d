package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runWait bounds a program that a test waits for.
const runWait = 60 * time.Second

// Cmd is a program to start on a machine of the laboratory.
type Cmd struct {
	Args  []string  // "ax" and the other AppSwitch programs are those of make build
	Env   []string  // in addition to the laboratory's
	Stdin io.Reader // none is /dev/null
	Dir   string    // none is the laboratory's own
	TTY   bool      // standard input, output and error are a new terminal, the process leads a session
}

// Proc is a program that was started.
type Proc struct {
	lab      *Lab
	cmd      *exec.Cmd
	out, err string        // files with what it wrote
	done     chan struct{} // closed when it has ended
	terminal *terminal     // its master side, if it has one
	daemon   bool          // a part of AppSwitch
}

// Result is what a program that has ended leaves.
type Result struct {
	Code   int // exit status, or 128 + the signal that ended it, as a shell says it
	Stdout string
	Stderr string
}

// Start starts a command line, split at spaces, with further arguments taken as they are. The program is ended with
// the test.
func (l *Lab) Start(line string, more ...string) *Proc {
	l.t.Helper()
	return l.StartCmd(Cmd{Args: append(strings.Fields(line), more...)})
}

// Run runs a command line to its end.
func (l *Lab) Run(line string, more ...string) Result {
	l.t.Helper()
	return l.Start(line, more...).Wait(runWait)
}

// Output runs a command line, which must succeed, and returns what it wrote to standard output, white space around it
// cut off.
func (l *Lab) Output(line string, more ...string) string {
	l.t.Helper()
	r := l.Run(line, more...)
	if r.Code != 0 {
		l.t.Fatalf("%s: exit status %d\n%s%s", strings.Join(append([]string{line}, more...), " "), r.Code, tail(r.Stdout, 20), tail(r.Stderr, 20))
	}
	return strings.TrimSpace(r.Stdout)
}

// StartCmd starts a program.
func (l *Lab) StartCmd(c Cmd) *Proc {
	l.t.Helper()
	p, err := l.start(c)
	if err != nil {
		l.t.Fatalf("start %s: %v", strings.Join(c.Args, " "), err)
	}
	l.t.Cleanup(p.Stop)
	return p
}

// start starts a program that nobody stops by itself.
func (l *Lab) start(c Cmd) (*Proc, error) {
	l.mu.Lock()
	number := len(l.procs)
	l.mu.Unlock()
	base := l.Path("log", fmt.Sprintf("%03d-%s", number, filepath.Base(c.Args[0])))
	p := &Proc{lab: l, out: base + ".out", err: base + ".err", done: make(chan struct{})}
	// nsenter becomes the program: the process id, signals and the exit status are the program's own. `ip netns exec`
	// would hide the control groups.
	p.cmd = exec.Command("nsenter", append([]string{"--net=" + filepath.Join(netnsDir, l.netns), "--"}, l.command(c.Args)...)...)
	p.cmd.Env = append(l.environ(), c.Env...)
	p.cmd.Dir = c.Dir
	if c.Dir == "" {
		p.cmd.Dir = l.dir
	}
	p.cmd.Stdin = c.Stdin
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Files, not pipes: a grandchild that keeps one open must not keep us waiting.
	for _, f := range []struct {
		name string
		to   *io.Writer
	}{{p.out, &p.cmd.Stdout}, {p.err, &p.cmd.Stderr}} {
		file, err := os.Create(f.name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		*f.to = file
	}
	if c.TTY {
		if err := p.attachTerminal(); err != nil {
			return nil, err
		}
		defer p.terminal.slave.Close()
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // what Wait returns is in ProcessState
		_ = p.cmd.Wait()
		close(p.done)
	}()
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	return p, nil
}

func (p *Proc) attachTerminal() error {
	t, err := openTerminal(p.out)
	if err != nil {
		return err
	}
	p.terminal = t
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = t.slave, t.slave, t.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return nil
}

func (p *Proc) String() string { return fmt.Sprintf("%s [%d]", p.command(), p.PID()) }

// command is the command line, without the way into the machine.
func (p *Proc) command() string { return strings.Join(p.cmd.Args[3:], " ") }

// PID is the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Stdout is what the program wrote to standard output so far.
func (p *Proc) Stdout() string { return read(p.out) }

// Stderr is what the program wrote to standard error so far.
func (p *Proc) Stderr() string { return read(p.err) }

// Running says whether the program has not ended.
func (p *Proc) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the program alone.
func (p *Proc) Signal(s syscall.Signal) {
	p.lab.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.lab.t.Fatalf("send %s to %s: %v", unix.SignalName(s), p, err)
	}
}

// Type writes to the program's terminal.
func (p *Proc) Type(text string) {
	p.lab.t.Helper()
	if _, err := p.terminal.master.WriteString(text); err != nil {
		p.lab.t.Fatalf("type into %s: %v", p, err)
	}
}

// Wait waits until the program has ended, which must happen in time.
func (p *Proc) Wait(limit time.Duration) Result {
	p.lab.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.lab.t.Fatalf("%s: still running after %v\n%s%s", p, limit, tail(p.Stdout(), 20), tail(p.Stderr(), 20))
	}
	code := p.cmd.ProcessState.ExitCode()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if p.terminal != nil {
		p.terminal.close()
	}
	return Result{Code: code, Stdout: p.Stdout(), Stderr: p.Stderr()}
}

// Stop asks the program and its children to end. One that has to be killed fails the test.
func (p *Proc) Stop() {
	p.lab.t.Helper()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = syscall.Kill(-p.PID(), s) // ESRCH: it has ended
		select {
		case <-p.done:
			if p.terminal != nil {
				p.terminal.close()
			}
			return
		case <-time.After(stopWait):
		}
		p.lab.t.Errorf("%s: still running %v after %s", p, stopWait, unix.SignalName(s))
	}
}

func read(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(bytes.ToValidUTF8(text, []byte("?")))
}

// Lines returns the lines of a program's output, without empty ones.
func Lines(text string) []string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r")
	}
	return slices.DeleteFunc(lines, func(s string) bool { return s == "" })
}
