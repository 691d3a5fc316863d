package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// stopWait bounds how long a program may take to end once it was asked to.
	stopWait = 10 * time.Second
	// quietWait bounds how long tables, ports and processes may outlive their application.
	quietWait = 10 * time.Second
)

var labs atomic.Int32

// Lab is a view of one machine for one test: commands run on the machine, and failures go to the test. [Lab.In] and
// [Lab.Neighbour] return other views of the same laboratory.
type Lab struct {
	*world
	t     testing.TB
	netns string
	uid   int // of what is started; 0 is root
}

// world is what all views of a laboratory share.
type world struct {
	name   string
	dir    string
	bin    string
	groups []string // control groups of AppSwitch that were there before

	mu      sync.Mutex // guards what follows
	procs   []*Proc
	daemons []*Daemon
}

// New makes a laboratory for a test, without daemons. It is removed when the test ends.
func New(t testing.TB) *Lab {
	t.Helper()
	w := &world{
		name:   fmt.Sprintf("%s%s-%d", prefix, os.Getenv(guardVar), labs.Add(1)),
		bin:    binaries(t),
		groups: controlGroups(),
	}
	w.dir = filepath.Join(os.TempDir(), w.name)
	l := &Lab{world: w, t: t, netns: w.name}
	t.Cleanup(l.close)
	// Programs that run as another user must get through.
	for _, d := range []string{w.dir, l.RunDir(), l.StateDir(), l.Path("log")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeNetwork(w.name); err != nil {
		t.Fatal(err)
	}
	return l
}

// binaries finds what `make build` built.
func binaries(t testing.TB) string {
	t.Helper()
	if os.Getenv(guardVar) == "" {
		t.Fatal("TestMain must call harness.Main, which cleans up after crashes")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	for _, program := range []string{"ax", "registryd", "resolverd", "routerd", "nodeagentd", "gatewayd"} {
		if _, err := os.Stat(filepath.Join(dir, "bin", program)); err != nil {
			t.Fatalf("%v: run `make build` first, or `make e2e`, which does", err)
		}
	}
	return filepath.Join(dir, "bin")
}

// In returns the view of the same machine for another test, usually a subtest: what it starts ends with that test.
func (l *Lab) In(t testing.TB) *Lab { return &Lab{world: l.world, t: t, netns: l.netns, uid: l.uid} }

// Neighbour returns the view of the machine at the other end of the cable, which has no AppSwitch.
func (l *Lab) Neighbour() *Lab { return &Lab{world: l.world, t: l.t, netns: l.name + "-out"} }

// RunDir is the directory of the agent's socket.
func (l *Lab) RunDir() string { return filepath.Join(l.dir, "run") }

// StateDir is the directory of everything that the daemons keep.
func (l *Lab) StateDir() string { return filepath.Join(l.dir, "state") }

// Path is a name in the laboratory's own directory, which goes with it.
func (l *Lab) Path(elem ...string) string { return filepath.Join(append([]string{l.dir}, elem...)...) }

// WriteFile writes a file into the laboratory's directory, readable for everybody, and returns its name.
func (l *Lab) WriteFile(name, content string) string {
	l.t.Helper()
	path := l.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		l.t.Fatal(err)
	}
	if dir := filepath.Dir(path); dir != l.dir {
		l.own(dir)
	}
	l.own(path)
	return path
}

// environ is the environment of every program in the laboratory.
func (l *Lab) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		// A proxy would take the programs' connections elsewhere.
		return strings.HasPrefix(name, "AX_") || strings.HasSuffix(strings.ToLower(name), "_proxy") ||
			slices.Contains([]string{"PATH", "HOME", guardVar, "GOFLAGS", "GOCOVERDIR"}, name)
	})
	return l.userEnviron(append(env,
		labVar+"="+l.name+"/",
		"AX_RUN_DIR="+l.RunDir(),
		"HOME="+l.dir,
		"PATH="+l.bin+":"+systemPath,
	))
}

// close ends the laboratory and reports what would have stayed. Applications have been stopped: their cleanups were
// registered later, so they ran first.
func (l *Lab) close() {
	l.t.Helper()
	if l.t.Failed() {
		l.dumpLogs()
	} else if l.anyDaemon() {
		l.Quiet()
	}
	for _, d := range slices.Backward(l.daemons) {
		d.Stop()
	}
	l.checkProcesses()
	l.checkSockets()
	for _, m := range mounts(l.dir + "/") {
		l.t.Errorf("mount left behind: %s", m)
	}
	for _, g := range controlGroups() {
		if !slices.Contains(l.groups, g) {
			l.t.Errorf("control group left behind: %s", g)
		}
	}
	if err := removeNetwork(l.name); err != nil {
		l.t.Errorf("remove the laboratory's network: %v", err)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("remove the laboratory's directory: %v", err)
	}
}

func (l *Lab) checkProcesses() {
	l.t.Helper()
	deadline := time.Now().Add(quietWait)
	for len(processes(l.name+"/")) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if left := processes(l.name + "/"); len(left) > 0 {
		l.t.Errorf("processes left behind: %v", left)
		killProcesses(l.name + "/")
	}
}

func (l *Lab) checkSockets() {
	l.t.Helper()
	if _, err := os.Stat(filepath.Join(netnsDir, l.name)); err != nil {
		return // New failed before there was a network
	}
	for _, ns := range []string{l.name, l.name + "-out"} {
		left, err := listening(ns)
		if err != nil {
			l.t.Error(err)
		}
		for _, s := range left {
			l.t.Errorf("socket left behind in %s: %s", ns, s)
		}
	}
}

// dumpLogs shows the end of what every program wrote, for a test that failed. Of a command that was run over and over,
// while something was waited for, the last time is enough.
func (l *Lab) dumpLogs() {
	l.mu.Lock()
	procs := slices.Clone(l.procs)
	l.mu.Unlock()
	last := map[string]*Proc{}
	for _, p := range procs {
		last[p.command()] = p
	}
	for _, p := range procs {
		if text := tail(p.Stdout()+p.Stderr(), 40); text != "" && (p.daemon || last[p.command()] == p) {
			l.t.Logf("--- %s\n%s", p, text)
		}
	}
}

func (l *Lab) anyDaemon() bool {
	return slices.ContainsFunc(l.daemons, func(d *Daemon) bool { return d.running() })
}

// tail returns the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
