// Package check looks at a machine and says whether the daemon and `ax run` can work on it.
//
// Invariant: it leaves the machine as it was. What can be tried out is tried out, on threads and sockets of its own
// that are gone when it returns; what is in doubt is a warning; every finding that isn't fine says how to fix it.
// Start reading at [Run].
package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"appswitch.io/services/nodeagent/launch/dirs"
)

// State is the outcome of one check.
type State string

// The outcomes.
const (
	OK      State = "ok"
	Warning State = "warning" // works, with a limitation
	Failed  State = "failed"  // does not work
)

// Result is the outcome of one check, for people and programs.
type Result struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// Options say what to look at.
type Options struct {
	RunDir   string // of the agent's socket
	StateDir string // of what the daemon keeps
	Proc     string // the proc file system, "/proc"
	Ports    []Port // that the daemon binds
}

// DefaultOptions are those of a daemon without options.
func DefaultOptions() Options {
	own := dirs.User{UID: os.Geteuid(), Getenv: os.Getenv, Exists: func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}}
	return Options{RunDir: own.Run(), StateDir: own.State(), Proc: "/proc", Ports: DefaultPorts()}
}

// Run makes all checks, in the order in which a reader wants to know.
func Run(ctx context.Context, o Options) []Result {
	root := os.Geteuid() == 0
	results := []Result{o.kernel(), o.seccompAction()}
	results = append(results, seccompListener()...)
	results = append(results, o.privileges(), o.ptrace(root), o.processes(root), o.pidNamespace(), o.netNamespace(), o.newNetNamespace(root), sockDiag(ctx), openFiles())
	results = append(results, directory("run directory", o.RunDir), directory("state directory", o.StateDir))
	for _, p := range o.Ports {
		results = append(results, o.port(ctx, p))
	}
	return results
}

// Ready reports whether no check failed.
func Ready(results []Result) bool {
	for _, r := range results {
		if r.State == Failed {
			return false
		}
	}
	return true
}

func ok(name, format string, args ...any) Result {
	return Result{Name: name, State: OK, Detail: fmt.Sprintf(format, args...)}
}

func warning(name, fix, format string, args ...any) Result {
	return Result{Name: name, State: Warning, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func failed(name, fix, format string, args ...any) Result {
	return Result{Name: name, State: Failed, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// directory checks that the daemon can write to dir, or make it: then the nearest directory above it counts.
func directory(name, dir string) Result {
	at := dir
	for {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return failed(name, "move it away, or name another directory", "%s is not a directory", at)
		case err == nil:
			f, err := os.CreateTemp(at, ".ax-check-*")
			if err != nil {
				return failed(name, "run as root, or name another directory (--run-dir, --state-dir)", "%s can't be written: %v", at, errors.Unwrap(err))
			}
			_ = f.Close()
			_ = os.Remove(f.Name())
			if at != dir {
				return ok(name, "%s can be made", dir)
			}
			return ok(name, "%s can be written", dir)
		case !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at):
			return failed(name, "run as root, or name another directory (--run-dir, --state-dir)", "%s: %v", dir, err)
		}
		at = filepath.Dir(at)
	}
}
