package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// NodeName is the name of the laboratory's machine in AppSwitch.
	NodeName = "node1"
	// REST is where the daemon answers on the laboratory's machine.
	REST = "http://127.0.0.1:6664"
	// readyWait bounds the start of a daemon.
	readyWait = 60 * time.Second
	// The host ports given to applications.
	firstAppPort, lastAppPort = 40000, 60000
)

// Daemon is a process of AppSwitch that can be killed and started again.
type Daemon struct {
	lab     *Lab
	debug   string // URL of its metrics and profiles
	args    []string
	environ []string // of every start
	env     []string // of the next start only
	foreign bool     // a program of somebody else: how it ends is its own business
	proc    *Proc
	ended   bool // as it was told
}

// StartDaemon starts AppSwitch in the shape of the moment (see [Shape]), with further flags of `ax daemon`, and waits until
// it is ready. It ends with the laboratory.
func (l *Lab) StartDaemon(flags ...string) *System {
	l.t.Helper()
	return l.StartShape(l.CurrentShape(), flags...)
}

// StartDaemonIn starts `ax daemon`, whatever the shape of the moment, with variables in its environment whenever it is
// started, and further flags.
func (l *Lab) StartDaemonIn(env []string, flags ...string) *Daemon {
	l.t.Helper()
	d := l.axDaemon(flags...)
	d.environ = env
	d.Start()
	l.Ready()
	return d
}

func (l *Lab) axDaemon(flags ...string) *Daemon {
	args := slices.Concat([]string{"ax", "daemon"}, l.registryFlags(), l.agentFlags(), resolverFlags(), flags)
	return l.daemon("http://127.0.0.1:6666", args...)
}

func (l *Lab) registryFlags() []string { return []string{"--state-dir", l.StateDir()} }

func (l *Lab) agentFlags() []string {
	return []string{"--run-dir", l.RunDir(), "--agent-state-dir", l.Path("agent"), "--driver", "user",
		"--node-name", NodeName, "--node-interface", "net0"}
}

// Names that nobody here knows go to the neighbour, where nothing answers, instead of to the real network.
func resolverFlags() []string { return []string{"--dns-servers", NeighbourIP} }

func (l *Lab) daemon(debug string, args ...string) *Daemon {
	d := &Daemon{lab: l, debug: debug, args: args}
	l.daemons = append(l.daemons, d)
	return d
}

// StartWith is Start with variables in the environment of this one process.
func (d *Daemon) StartWith(env ...string) {
	d.lab.t.Helper()
	d.env = env
	defer func() { d.env = nil }()
	d.Start()
}

// Replace makes another program the daemon's from the next start on.
func (d *Daemon) Replace(program string) { d.args = append([]string{program}, d.args[1:]...) }

// With adds flags from the next start on.
func (d *Daemon) With(flags ...string) *Daemon {
	d.args = append(d.args, flags...)
	return d
}

// Crashed reports whether the daemon was killed; one that has ended in another way fails the test.
func (d *Daemon) Crashed() bool {
	d.lab.t.Helper()
	if d.running() {
		return false
	}
	if r := d.proc.Wait(stopWait); r.Code != 128+int(syscall.SIGKILL) {
		d.lab.t.Fatalf("%s: exit status %d\n%s", d.proc, r.Code, tail(r.Stderr, 40))
	}
	return true
}

// Start starts a daemon that doesn't run, without waiting until it is ready.
func (d *Daemon) Start() {
	d.lab.t.Helper()
	if d.running() {
		d.lab.t.Fatalf("%s runs already", d.proc)
	}
	p, err := d.lab.start(Cmd{Args: d.args, Env: slices.Concat(d.environ, d.env)})
	if err != nil {
		d.lab.t.Fatalf("start %s: %v", d.args[0], err)
	}
	p.daemon = true
	d.proc, d.ended = p, false
}

// Kill ends the daemon as a crash does.
func (d *Daemon) Kill() {
	d.lab.t.Helper()
	d.kill()
	d.proc.Wait(stopWait)
}

func (d *Daemon) kill() { _ = syscall.Kill(d.proc.PID(), syscall.SIGKILL) }

// name is that of its program.
func (d *Daemon) name() string { return filepath.Base(d.args[0]) }

// Stop asks the daemon to end, which must succeed in time. One that has been killed stays so.
func (d *Daemon) Stop() {
	d.lab.t.Helper()
	d.End(syscall.SIGTERM)
}

// End is Stop with a signal of choice.
func (d *Daemon) End(signal syscall.Signal) {
	d.lab.t.Helper()
	if !d.running() {
		return
	}
	d.ended = true
	_ = syscall.Kill(d.proc.PID(), signal)
	select {
	case <-d.proc.done:
		if r := d.proc.Wait(time.Second); r.Code != 0 && !d.foreign {
			d.lab.t.Errorf("%s: exit status %d after %s\n%s", d.proc, r.Code, signal, tail(r.Stderr, 40))
		}
	case <-time.After(2 * stopWait):
		// The Go runtime prints its goroutines at SIGQUIT: that shows what it waits for.
		_ = syscall.Kill(d.proc.PID(), syscall.SIGQUIT)
		time.Sleep(time.Second)
		d.lab.t.Errorf("%s: still running %v after %s\n%s", d.proc, 2*stopWait, signal, tail(d.proc.Stderr(), 400))
		d.Kill()
	}
}

// Freeze stops the daemon's execution without ending it: it hangs, and its connections stay open, until Thaw.
func (d *Daemon) Freeze() { d.proc.Signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (d *Daemon) Thaw() { d.proc.Signal(syscall.SIGCONT) }

// Answers waits until the daemon itself answers, whatever the others do.
func (d *Daemon) Answers() {
	d.lab.t.Helper()
	d.lab.Eventually(readyWait, d.name()+" answers", func() error {
		reply, err := d.lab.Get(d.debug + "/healthz")
		if err == nil && reply.Status != 200 {
			err = fmt.Errorf("/healthz: status %d: %s", reply.Status, reply.Body)
		}
		return err
	})
}

// Running says whether the daemon has been started and has not ended.
func (d *Daemon) Running() bool { return d.running() }

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.proc.PID() }

// Log is what the daemon wrote since it was last started.
func (d *Daemon) Log() string { return d.proc.Stdout() + d.proc.Stderr() }

func (d *Daemon) running() bool { return d.proc != nil && d.proc.Running() }

// Ready waits until the machine serves: REST says so, and `ax status` too.
func (l *Lab) Ready() {
	l.t.Helper()
	l.Eventually(readyWait, "AppSwitch is ready", func() error {
		for _, d := range l.daemons {
			if d.proc != nil && !d.ended && !d.running() {
				l.t.Fatalf("%s ended while starting:\n%s", d.proc, tail(d.Log(), 40))
			}
		}
		reply, err := l.Get(REST + "/healthz")
		if err != nil {
			return err
		}
		if reply.Status != 200 {
			return fmt.Errorf("/healthz: status %d: %s", reply.Status, reply.Body)
		}
		if r := l.StartCmd(Cmd{Args: []string{"ax", "status"}, Env: l.variables()}).Wait(runWait); r.Code != 0 {
			return fmt.Errorf("ax status: exit status %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
}

// variables are those of the daemons that run: who asks them over gRPC needs their certificates.
func (l *Lab) variables() []string {
	var out []string
	for _, d := range l.daemons {
		if d.running() {
			out = append(out, d.environ...)
		}
	}
	return out
}

func (l *Lab) isDaemon(pid int) bool {
	return slices.ContainsFunc(l.daemons, func(d *Daemon) bool { return d.running() && d.PID() == pid })
}

// Metrics returns those metrics of the machine's daemons whose lines contain text, for the message of a failure.
func (l *Lab) Metrics(text string) string {
	var out []string
	for _, d := range l.daemons {
		reply, err := l.Get(d.debug + "/metrics")
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		for line := range strings.Lines(reply.Body) {
			if strings.Contains(line, text) && !strings.HasPrefix(line, "#") {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(out, "\n")
}

// Usage is what a daemon holds on to.
type Usage struct {
	Descriptors int
	Goroutines  int
}

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

// Usage counts what the daemon holds on to now.
func (d *Daemon) Usage() (Usage, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	if err != nil {
		return Usage{}, err
	}
	reply, err := d.lab.Get(d.debug + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return Usage{}, err
	}
	match := goroutineTotal.FindStringSubmatch(reply.Body)
	if match == nil {
		return Usage{}, errors.New("no goroutine profile: " + tail(reply.Body, 5))
	}
	total, err := strconv.Atoi(match[1])
	return Usage{Descriptors: len(fds), Goroutines: total}, err
}
