//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// normalUser has no entry in /etc/passwd, no groups and no rights.
const normalUser = 1001

// rootless returns a normal user's view of a machine on which nothing but the user's own daemon runs.
func rootless(t *testing.T) (*harness.Lab, *harness.Daemon) {
	t.Helper()
	user := harness.New(t).User(normalUser)
	return user, user.StartOwnDaemon()
}

// TestRootless: without root, in two commands, what the documentation says of root works: addresses, names, labels, the
// privileged port of an nginx as it stands.
func TestRootless(t *testing.T) {
	lab, _ := rootless(t)
	lab.Start("ax run --ip 1.1.1.1 --name web --", nginx(lab, "nginx", "up")...)
	server := lab.Serving("1.1.1.1:80", 1)[0]
	equal(t, "by address", lab.Output("ax run --ip 2.2.2.2 -- curl -sS --max-time 10 http://1.1.1.1/peer"), "1.1.1.1 2.2.2.2")
	equal(t, "by name", lab.Output("ax run -- curl -sS --max-time 10 http://web/id"), "up")
	equal(t, "in the present namespace", lab.Output("ax run --new-netns=false -- curl -sS --max-time 10 http://web/id"), "up")
	refused(t, lab, "without a shared label", "ax run --labels role=other --", "http://1.1.1.1/id")
	const emptyReply, reset = 52, 56 // accepted by the kernel, closed by the agent
	if r := lab.Run("curl -sS --max-time 10 http://" + server.HostAddress.String() + "/id"); r.Code != emptyReply && r.Code != reset || r.Stdout != "" {
		t.Errorf("the host port, from outside: %+v", r)
	}

	lab.Start("ax run --ip 3.3.3.3 --name redis --", lab.Need("redis-server"), "--port", "6379", "--bind", "* -::*", "--protected-mode", "no", "--save", "", "--dir", lab.Home())
	lab.Serving("3.3.3.3:6379", 1)
	equal(t, "redis", lab.Output("ax run -- redis-cli -h redis set key value"), "OK")
	equal(t, "redis", lab.Output("ax run -- redis-cli -h 3.3.3.3 get key"), "value")

	lab.WriteFile("home-1001/hello", "hello\n")
	lab.Start("ax run --ip 4.4.4.4 -- python3 -m http.server -d", lab.Home(), "80")
	lab.Serving("4.4.4.4:80", 1)
	equal(t, "python", lab.Output("ax run -- curl -sS --max-time 10 http://4.4.4.4/hello"), "hello")

	lab.Output("ax connectivity test")
}

// TestRootlessFindsItsDaemon: sockets and state are where the XDG specification has them, and every command finds them.
func TestRootlessFindsItsDaemon(t *testing.T) {
	lab := harness.New(t).User(normalUser)
	daemon := lab.StartOwnDaemon("--dns-port", "53") // the default, which it can't have
	server := lab.Start("ax run --name here --", lab.GoProgram("goserver"), "-listen", ":80", "-id", "here")
	equal(t, "by name", served(lab, "http://here/"), "here")
	server.Stop()
	for _, path := range []string{
		filepath.Join(lab.RuntimeDir(), "appswitch/agent.sock"), filepath.Join(lab.RuntimeDir(), "appswitch-agent/sockets.journal"),
		filepath.Join(lab.Home(), ".local/state/appswitch/daemon.lock"),
	} {
		if info, err := os.Stat(path); err != nil {
			t.Error(err)
		} else if uid := info.Sys().(*syscall.Stat_t).Uid; uid != normalUser {
			t.Errorf("%s belongs to user %d", path, uid)
		}
	}
	contains(t, "ax get nodes", lab.Output("ax get nodes"), harness.NodeName)
	contains(t, "ax status", lab.Output("ax status"), "nodeagent")
	r := lab.Run("ax check")
	if r.Code != 0 || strings.Contains(r.Stdout, "✗") || !strings.Contains(r.Stdout, "can be made, in a user namespace") ||
		!strings.Contains(r.Stdout, lab.RuntimeDir()+"/appswitch can be written") {
		t.Errorf("ax check: %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, p := range []string{"daemon", "daemon --state-dir " + lab.Home() + "/other --run-dir " + lab.Home() + "/run"} {
		r := lab.Run("ax " + p)
		if r.Code != 1 || !strings.Contains(r.Stderr, "--state-dir") && !strings.Contains(r.Stderr, "AX_SERVER=http://127.0.0.1:16664") {
			t.Errorf("a second %s: %d\n%s", p, r.Code, r.Stderr)
		}
	}
	daemon.Stop()
	if err := os.RemoveAll(filepath.Join(lab.RuntimeDir(), "appswitch")); err != nil {
		t.Fatal(err)
	}
	if r := lab.Run("ax run -- true"); r.Code != 125 || !strings.Contains(r.Stderr, "is not running here") {
		t.Errorf("without a daemon: %d\n%s", r.Code, r.Stderr)
	}
}

// TestRootlessIsTransparent: the program behaves as it does without `ax run`, though there is a parent.
func TestRootlessIsTransparent(t *testing.T) {
	lab, _ := rootless(t)
	for _, script := range []string{
		"exit 42", "echo out; echo err >&2", "kill -TERM $$", "kill -KILL $$", "kill -SEGV $$", "ls -1 /proc/self/fd | tr '\n' ' '", "pwd; umask; ulimit -a", "id",
		"grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status", "env | grep -v ^_= | sort",
	} {
		want := lab.Run("sh -c", script)
		for _, options := range []string{"", "--new-netns=false "} {
			if got := lab.Run("ax run "+options+"-- sh -c", script); got != want {
				t.Errorf("%s%q: %+v, natively %+v", options, script, got, want)
			}
		}
	}
	// Who waits for it sees a death by a signal, not an exit status that means one.
	const status = "import subprocess, sys; print(subprocess.run(sys.argv[1:]).returncode)"
	for _, signal := range []string{"TERM", "KILL", "SEGV"} {
		command := []string{"sh", "-c", "kill -" + signal + " $$"}
		want := lab.Output("python3 -c", append([]string{status}, command...)...)
		equal(t, "death by "+signal, lab.Output("python3 -c", append([]string{status, "ax", "run", "--"}, command...)...), want)
	}
	equal(t, "standard input", lab.Output("sh -c", "echo through | ax run -- cat | cat"), "through")

	trap := lab.Start("ax run -- sh -c", "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
	lab.Eventually(runLimit, "the program runs", func() error { return wantText(trap.Stdout(), true) })
	trap.Signal(syscall.SIGTERM)
	if r := trap.Wait(runLimit); r.Code != 7 || !strings.Contains(r.Stdout, "caught") {
		t.Errorf("after SIGTERM: %+v", r)
	}
	tty := lab.StartCmd(harness.Cmd{TTY: true, Args: []string{"ax", "run", "--", "sh", "-c", "test -t 0 && test -t 1 && echo yes; exec sleep 60"}})
	lab.Eventually(runLimit, "the program runs", func() error { return wantText(tty.Stdout(), true) })
	tty.Type("\x03")
	if r := tty.Wait(runLimit); r.Code != 128+int(syscall.SIGINT) {
		t.Errorf("after the interrupt key: %d\n%s", r.Code, r.Stdout)
	}
	if r := lab.Run("ax run --user nobody -- true"); r.Code != 125 || !strings.Contains(r.Stderr, "only root may run programs as another user") {
		t.Errorf("--user: %+v", r)
	}
}

// TestLoopbackBehindParent: a program that a parent speaks for, as without root and with --init, has a loopback of its own
// all the same, and is the one that `ax get apps` shows.
func TestLoopbackBehindParent(t *testing.T) {
	lab := harness.New(t)
	user := lab.User(normalUser)
	user.StartOwnDaemon()
	root := lab.In(t)
	root.Start(lab.GoProgram("goserver") + " -listen 127.0.0.1:9100 -id host")
	listens(root, "127.0.0.1:9100")
	for _, options := range []string{"", "--init "} {
		refused(t, user, options+"the host's loopback", "ax run "+options+"--", "http://127.0.0.1:9100/")
		app := user.Start("ax run "+options+"--name inside -- sh -c", `echo $$; exec "$0" -listen 127.0.0.1:9100 -id inside`, lab.GoProgram("goserver"))
		user.Eventually(runLimit, "the program is known", func() error {
			apps, err := user.Apps()
			if err == nil && (len(apps) != 1 || strconv.Itoa(apps[0].PID) != strings.TrimSpace(app.Stdout())) {
				err = fmt.Errorf("apps %v, process %s", apps, app.Stdout())
			}
			return err
		})
		app.Stop()
		user.Eventually(runLimit, "the program is gone", func() error {
			apps, err := user.Apps()
			if err == nil && len(apps) != 0 {
				err = fmt.Errorf("apps %v", apps)
			}
			return err
		})
	}
}

// TestRootlessRing: the agent has the rings of the holders without root, too, and so loses no connection that it is just
// accepting when it is killed.
func TestRootlessRing(t *testing.T) {
	lab := harness.New(t).User(normalUser)
	daemon := lab.StartOwnDaemon("--log-level", "debug")
	known := func() {
		t.Helper()
		lab.Eventually(runLimit, "both programs are known", func() error {
			apps, err := lab.Apps()
			if err == nil && len(apps) != 2 {
				err = fmt.Errorf("apps %v", apps)
			}
			return err
		})
		if log := daemon.Log(); strings.Contains(log, "ring is not taken") || !strings.Contains(log, "level=DEBUG") {
			t.Errorf("the agent does without a ring:\n%s", log)
		}
	}
	lab.Start("ax run -- sleep 60")
	lab.Start("ax run --new-netns=false -- sleep 60")
	known()
	daemon.Kill()
	daemon.Start()
	lab.Ready()
	known()
	// What the agent could look into while it attached itself is hidden again.
	parents := lab.Processes("ax run -- sleep")
	if len(parents) != 1 {
		t.Fatalf("parents %v", parents)
	}
	if r := lab.Run("cat", fmt.Sprintf("/proc/%d/environ", parents[0])); r.Code == 0 {
		t.Error("the holder can be looked into")
	}
}

// TestRootlessAgentKilledUnderLoad: a crash of the user's daemon loses nothing.
func TestRootlessAgentKilledUnderLoad(t *testing.T) {
	lab, daemon := rootless(t)
	underLoad(t, lab, func() { killTenTimes(lab, daemon) })
}

// TestRootlessRestricted: where user namespaces can't be had, `ax run` and `ax check` say which setting it is and what lifts it.
func TestRootlessRestricted(t *testing.T) {
	lab, _ := rootless(t)
	// The limit belongs to a user namespace; it is lowered in one where the program has no rights either.
	const lowered = `echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all --inh-caps=-all --bounding-set=-all --no-new-privs "$@"`
	restricted := func(args ...string) harness.Result {
		return lab.Run("unshare -U --map-current-user --keep-caps sh -c", append([]string{lowered, "sh"}, args...)...)
	}
	const setting, way = "user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000"
	r := restricted("ax", "run", "--", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, setting) || !strings.Contains(r.Stderr, way) {
		t.Errorf("ax run: %+v", r)
	}
	if r := restricted("ax", "check"); !strings.Contains(r.Stdout, setting) || !strings.Contains(r.Stdout, way) {
		t.Errorf("ax check: %+v", r)
	}
}
