package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// User returns the view of the same machine for a normal user, who has no entry in /etc/passwd: what is started there runs
// with that user id, with directories of its own and no other daemon named.
func (l *Lab) User(uid int) *Lab {
	l.t.Helper()
	u := &Lab{world: l.world, t: l.t, netns: l.netns, uid: uid}
	if err := os.Chmod(l.dir, 0o777); err != nil { // programs leave marks there
		l.t.Fatal(err)
	}
	for _, dir := range []string{u.Home(), u.RuntimeDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			l.t.Fatal(err)
		}
		u.own(dir)
	}
	return u
}

// Home is the user's home directory.
func (l *Lab) Home() string {
	if l.uid == 0 {
		return l.dir
	}
	return l.Path("home-" + strconv.Itoa(l.uid))
}

// RuntimeDir is the user's XDG_RUNTIME_DIR.
func (l *Lab) RuntimeDir() string { return filepath.Join(l.Home(), "runtime") }

// own gives a file to the view's user.
func (l *Lab) own(path string) {
	l.t.Helper()
	if l.uid == 0 {
		return
	}
	if err := os.Chown(path, l.uid, l.uid); err != nil {
		l.t.Fatal(err)
	}
}

// command is how the view's user starts a program from a process of root's.
func (l *Lab) command(args []string) []string {
	if l.uid == 0 {
		return args
	}
	id := strconv.Itoa(l.uid)
	return append([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--"}, args...)
}

// userEnviron changes the laboratory's environment to the user's.
func (l *Lab) userEnviron(env []string) []string {
	if l.uid == 0 {
		return env
	}
	var out []string
	for _, v := range env {
		if name, _, _ := strings.Cut(v, "="); name != "AX_RUN_DIR" && name != "HOME" && !strings.HasPrefix(name, "XDG_") {
			out = append(out, v)
		}
	}
	return append(out, "HOME="+l.Home(), "XDG_RUNTIME_DIR="+l.RuntimeDir())
}

// StartOwnDaemon starts `ax daemon` as the view's user does, without naming its directories, and waits until it is ready. Its
// DNS port is fixed: the one that it takes where it can't have 53 may be in the range of the applications' ports.
func (l *Lab) StartOwnDaemon(flags ...string) *Daemon {
	l.t.Helper()
	args := append([]string{"ax", "daemon", "--node-name", NodeName, "--node-interface", "net0", "--dns-port", "5300"}, resolverFlags()...)
	d := l.daemon("http://127.0.0.1:6666", append(args, flags...)...)
	d.Start()
	l.Ready()
	return d
}

// Processes returns the process ids of the laboratory's processes whose command lines start with a text.
func (l *Lab) Processes(command string) []int {
	var out []int
	for _, p := range processes(l.name + "/") {
		if strings.HasPrefix(p.command, command) {
			out = append(out, p.pid)
		}
	}
	return out
}
