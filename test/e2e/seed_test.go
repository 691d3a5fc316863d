//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestSeed runs the examples of the original AppSwitch documentation that need one node, as they are written there, each
// script on a machine of its own. The commands of the scripts are those of [seed].
func TestSeed(t *testing.T) {
	files, err := filepath.Glob("testdata/seed/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	cache := "GOCACHE=" + goCache(t) // or `go tool pprof` is built anew
	testscript.RunT(oneByOne{t}, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			shim, ok := env.T().(oneByOne)
			if !ok {
				return fmt.Errorf("a test of type %T", env.T())
			}
			lab := harness.New(shim.T)
			env.Vars = append(env.Vars, "LAB="+lab.Path(), "NODEIP="+harness.NodeIP, cache)
			env.Values[seedKey{}] = &seed{lab: lab, path: "PATH=" + seedNginx(lab) + ":" + lab.Output("printenv PATH")}
			return os.Chmod(env.WorkDir, 0o755) // for programs of other users
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"$":       onSeed((*seed).prompt),
			"until":   onSeed((*seed).until),
			"daemon":  onSeed((*seed).startDaemon),
			"restart": onSeed((*seed).restart),
			"ctrl-c":  onSeed((*seed).interrupt),
			"serving": onSeed((*seed).serving),
			"end":     onSeed((*seed).end),
			"onhost":  onSeed((*seed).onHost),
		},
	})
}

// goCache returns where the go command keeps what it built.
func goCache(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatalf("go env GOCACHE: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// oneByOne is a test whose subtests don't run at the same time.
type oneByOne struct{ *testing.T }

func (o oneByOne) Parallel()     {}
func (o oneByOne) Verbose() bool { return testing.Verbose() }
func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(oneByOne{t}) })
}

// seed is what a script has of its own.
type seed struct {
	lab        *harness.Lab
	path       string // the variable
	daemon     *harness.Daemon
	background []*harness.Proc // what `$ … &` started, in this order
}

type seedKey struct{}

func onSeed(f func(*seed, *testscript.TestScript, bool, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s, ok := ts.Value(seedKey{}).(*seed)
		if !ok {
			ts.Fatalf("no machine")
		}
		f(s, ts, neg, args)
	}
}

// seedNginx makes an nginx that is configured as the documentation asks for, "to listen on IPv4 address only", and returns
// the directory of it. Who answers is seen in a header, as there, and in the log.
func seedNginx(lab *harness.Lab) string {
	lab.WriteFile("www/index.html", "<p>Welcome\n")
	conf := lab.WriteFile("nginx/nginx.conf", strings.ReplaceAll(`
worker_processes 1;
pid DIR/nginx/nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
http {
    access_log /dev/stderr;
    types { text/html html; }
    client_body_temp_path DIR/nginx/body;
    proxy_temp_path DIR/nginx/proxy;
    fastcgi_temp_path DIR/nginx/fastcgi;
    uwsgi_temp_path DIR/nginx/uwsgi;
    scgi_temp_path DIR/nginx/scgi;
    server {
        listen 80;
        root DIR/www;
        add_header X-Backend-Server $pid;
    }
}
`, "DIR", lab.Path()))
	wrapper := lab.WriteFile("path/nginx", "#!/bin/sh\nexec "+lab.Need("nginx")+" -e stderr -p "+lab.Path("nginx")+" -c "+conf+" \"$@\"\n")
	lab.Output("chmod 755 " + wrapper)
	return filepath.Dir(wrapper)
}

// meant changes a command to what the documentation means: the tests are root already, and Python has renamed its server since.
func meant(args []string) []string {
	args = slices.Clone(args)
	if len(args) > 0 && args[0] == "sudo" {
		args = args[1:]
	}
	for i, a := range args {
		if a == "SimpleHTTPServer" {
			args[i] = "http.server"
		}
		if a == "python" {
			args[i] = "python3"
		}
	}
	return args
}

// prompt is a command line of the documentation: `$ ax get apps`. One that ends in & stays; `ax daemon` does, too.
func (s *seed) prompt(ts *testscript.TestScript, neg bool, args []string) {
	args = meant(args)
	if len(args) == 0 {
		ts.Fatalf("usage: $ COMMAND...")
	}
	if len(args) >= 2 && args[0] == "ax" && args[1] == "daemon" && !neg {
		s.startDaemon(ts, neg, args[2:])
		return
	}
	if last := len(args) - 1; strings.HasSuffix(args[last], "&") {
		if args[last] = strings.TrimSuffix(args[last], "&"); args[last] == "" {
			args = args[:last]
		}
		s.background = append(s.background, s.start(ts, args))
		return
	}
	r := s.run(ts, args)
	if (r.Code == 0) == neg {
		ts.Fatalf("%s: exit status %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
}

// start starts a command. One that wants to show something gets a terminal.
func (s *seed) start(ts *testscript.TestScript, args []string) *harness.Proc {
	return s.lab.StartCmd(harness.Cmd{Args: args, Dir: ts.MkAbs("."), TTY: args[0] == "watch", Env: []string{s.path, "TERM=xterm"}})
}

// run runs a command to its end and shows the script what it wrote.
func (s *seed) run(ts *testscript.TestScript, args []string) harness.Result {
	r := s.start(ts, args).Wait(runLimit)
	fmt.Fprint(ts.Stdout(), strings.ReplaceAll(r.Stdout, "\r\n", "\n"))
	fmt.Fprint(ts.Stderr(), r.Stderr)
	return r
}

// until repeats a command until its output matches: until REGEXP COMMAND... Or it looks at one that was started with &,
// counted from 1, until it does: until REGEXP & NUMBER
func (s *seed) until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: until REGEXP COMMAND... | until REGEXP & NUMBER")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	s.lab.Eventually(runLimit, strings.Join(args, " "), func() error {
		var out string
		if args[1] == "&" {
			p := s.started(ts, args[2:])
			out = p.Stdout() + p.Stderr()
		} else {
			r := s.start(ts, meant(args[1:])).Wait(runLimit)
			out = strings.ReplaceAll(r.Stdout+r.Stderr, "\r\n", "\n")
		}
		if !want.MatchString(out) {
			return fmt.Errorf("got %s", out)
		}
		return nil
	})
}

// startDaemon starts `ax daemon` with the options given, and with variables: daemon [NAME=VALUE]... [--OPTION]...
func (s *seed) startDaemon(_ *testscript.TestScript, _ bool, args []string) {
	var env []string
	for len(args) > 0 && strings.Contains(args[0], "=") && !strings.HasPrefix(args[0], "-") {
		env, args = append(env, args[0]), args[1:]
	}
	s.daemon = s.lab.StartDaemonIn(env, args...)
}

// restart ends the daemon in order and starts it again, with the same options and further ones: restart [--OPTION]...
func (s *seed) restart(_ *testscript.TestScript, _ bool, args []string) {
	s.daemon.Stop()
	s.daemon.With(args...).Start()
	s.lab.Ready()
}

// interrupt ends the daemon as Ctrl-C does.
func (s *seed) interrupt(*testscript.TestScript, bool, []string) { s.daemon.End(syscall.SIGINT) }

// serving waits until the service table has a number of servers at an address: serving ADDRESS:PORT COUNT
func (s *seed) serving(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: serving ADDRESS:PORT COUNT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	s.lab.Serving(args[0], n)
}

// stop ends one of the commands that were started with &, counted from 1: end NUMBER
func (s *seed) end(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: end NUMBER")
	}
	s.started(ts, args).Stop()
}

// started returns a command that was started with &.
func (s *seed) started(ts *testscript.TestScript, args []string) *harness.Proc {
	if len(args) != 1 {
		ts.Fatalf("want the number of a command, counted from 1")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	if n < 1 || n > len(s.background) {
		ts.Fatalf("%d commands were started", len(s.background))
	}
	return s.background[n-1]
}

// onHost runs a command that is no part of the example, as it is: onhost COMMAND...
func (s *seed) onHost(ts *testscript.TestScript, neg bool, args []string) {
	if r := s.run(ts, args); (r.Code == 0) == neg {
		ts.Fatalf("%s: exit status %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
}
