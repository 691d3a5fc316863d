//go:build e2e

package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// recorder is a test that may fail without consequences.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprintln(args...)) }
func (r *recorder) Errorf(f string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(f, args...))
}
func (r *recorder) Failed() bool     { return len(r.errors) > 0 }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) end() string {
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		f := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		f()
	}
	return strings.Join(r.errors, "\n")
}

// TestLeftoversAreFound leaves something of every kind behind; the laboratory must say so, and remove it.
func TestLeftoversAreFound(t *testing.T) {
	mountPoint := ""
	for _, c := range []struct {
		what  string
		leave func(l *Lab)
		want  string
	}{
		{"nothing", func(*Lab) {}, ""},
		{"a daemonized process", func(l *Lab) {
			l.Run("sh -c", "setsid --fork sleep 300")
			// Within execve(2) a process has no environment to be known by.
			for deadline := time.Now().Add(10 * time.Second); len(processes(l.name+"/")) == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}, "processes left behind: ["},
		{"a mount", func(l *Lab) {
			mountPoint = l.Path("run")
			if err := syscall.Mount("none", mountPoint, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
		}, "mount left behind: "},
		{"a socket of this process", func(l *Lab) {
			err := inNetns(l.netns, func() error {
				listener, err := net.Listen("tcp", "127.0.0.1:12345")
				if err == nil {
					t.Cleanup(func() { listener.Close() })
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}, "socket left behind"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := &recorder{TB: t}
			lab := New(r)
			c.leave(lab)
			got := r.end()
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("reported %q, want %q", got, c.want)
			}
			if mountPoint != "" {
				_ = syscall.Unmount(mountPoint, syscall.MNT_DETACH)
				_ = os.RemoveAll(filepath.Dir(mountPoint))
				mountPoint = ""
			}
			if left := processes(lab.name + "/"); len(left) > 0 {
				t.Errorf("not removed: %v", left)
			}
			if _, err := os.Stat(filepath.Join(netnsDir, lab.name)); !os.IsNotExist(err) {
				t.Errorf("the network namespace is still there: %v", err)
			}
		})
	}
}

// TestProcesses: process id, exit status, output and signals are those of the program itself, and both machines have
// their addresses.
func TestProcesses(t *testing.T) {
	lab := New(t)
	if r := lab.Run("sh -c", "echo out; echo err >&2; exit 3"); r != (Result{3, "out\n", "err\n"}) {
		t.Errorf("%+v", r)
	}
	p := lab.Start("sh -c", "echo $$; exec sleep 100")
	lab.Eventually(time.Minute, "the program runs", func() error {
		if p.Stdout() == "" {
			return os.ErrNotExist
		}
		return nil
	})
	if p.Stdout() != fmt.Sprintln(p.PID()) {
		t.Errorf("process id %s, want %d", p.Stdout(), p.PID())
	}
	p.Signal(syscall.SIGHUP)
	if r := p.Wait(time.Minute); r.Code != 128+int(syscall.SIGHUP) {
		t.Errorf("%+v", r)
	}
	if out := lab.Output("ip -4 -brief addr show net0"); !strings.Contains(out, NodeIP) {
		t.Errorf("the node's interface: %s", out)
	}
	if out := lab.Neighbour().Output("ip -4 -brief addr show net0"); !strings.Contains(out, NeighbourIP) {
		t.Errorf("the neighbour's interface: %s", out)
	}
}

func TestTerminal(t *testing.T) {
	lab := New(t)
	p := lab.StartCmd(Cmd{TTY: true, Args: []string{"sh", "-c", "tty; read line; echo got $line; exec sleep 100"}})
	p.Type("words\r")
	lab.Eventually(time.Minute, "the line arrives", func() error {
		if !strings.Contains(p.Stdout(), "got words") {
			return fmt.Errorf("output %q", p.Stdout())
		}
		return nil
	})
	p.Type("\x03")
	if r := p.Wait(time.Minute); r.Code != 128+int(syscall.SIGINT) || !strings.Contains(r.Stdout, "/dev/pts/") {
		t.Errorf("%+v", r)
	}
}
