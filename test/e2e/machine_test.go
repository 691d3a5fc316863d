//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
	"golang.org/x/sys/unix"
)

// TestUnfitMachine: what the machine below a daemon lacks is told in one line with the way out, by `ax daemon` and by each
// daemon that needs it, with exit status 1.
func TestUnfitMachine(t *testing.T) {
	lab := harness.New(t)
	lab.Output("chmod 755 " + lab.Path())
	readOnly, full, almost := tmpfs(t, lab, "readonly", 1<<20), tmpfs(t, lab, "full", 1<<20), tmpfs(t, lab, "almost", 64<<20)
	lab.WriteFile("full/filler", strings.Repeat("x", 1<<20))
	if err := unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	const nobody = "setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all "
	const net = " --node-interface net0"
	dirs := func(state, run string) string { return " --state-dir " + state + "/s --run-dir " + run + "/r" }
	agent := func(state, run string) string { return " --agent-state-dir " + state + "/a --run-dir " + run + "/r" }
	good := lab.Path("good")
	taken := func(port string) string { return "127.0.0.1:" + port + ": bind: address already in use" }
	for _, port := range []string{"6664", "6665", "6666", "6670", "6675", "6680", "6685"} {
		l := lab.Listen("127.0.0.1:" + port)
		t.Cleanup(func() { _ = l.Close() })
	}
	for _, c := range []struct{ line, want string }{
		// No permission.
		{nobody + "ax daemon" + net + dirs(lab.Path(), lab.Path()), "--state-dir: mkdir " + lab.Path("s") + ": permission denied (run as root, or name another directory)"},
		{nobody + "registryd --listen 127.0.0.1:0 --metrics-listen= --state-dir " + lab.Path("s"), "--state-dir: mkdir " + lab.Path("s") + ": permission denied (run as root, or name another directory)"},
		{nobody + "nodeagentd" + net + agent(lab.Path(), lab.Path()), "--agent-state-dir: mkdir " + lab.Path("a") + ": permission denied (run as root, or name another directory)"},

		// A state directory that can't be written.
		{"ax daemon" + net + dirs(readOnly, good), "--state-dir: mkdir " + readOnly + "/s: read-only file system (name a directory that can be written)"},
		{"registryd --listen 127.0.0.1:0 --metrics-listen= --state-dir " + readOnly + "/s", "--state-dir: mkdir " + readOnly + "/s: read-only file system (name a directory that can be written)"},
		{"nodeagentd" + net + agent(readOnly, good), "--agent-state-dir: mkdir " + readOnly + "/a: read-only file system (name a directory that can be written)"},
		{"nodeagentd --listen 127.0.0.1:0 --metrics-listen=" + net + agent(good, readOnly), "--run-dir: mkdir " + readOnly + "/r: read-only file system (name a directory that can be written)"},

		// A full disk, and one on which etcd would not find the space to start.
		{"ax daemon" + net + dirs(full, good), "no space left on device (free some space, or name another directory)"},
		{"ax daemon --grpc-listen 127.0.0.1:0 --metrics-listen= --rest-port 7000" + net + dirs(almost, good), "--state-dir: " + almost + "/s/registry has 63 MiB of space left, and 128 MiB are needed (free some, or name another directory)"},
		{"registryd --listen 127.0.0.1:0 --metrics-listen= --state-dir " + almost, "--state-dir: " + almost + " has 63 MiB of space left, and 128 MiB are needed (free some, or name another directory)"},
		{"nodeagentd" + net + agent(full, good), "no space left on device (free some space, or name another directory)"},

		// Ports that are taken.
		{"ax daemon" + net + dirs(good, good), "--grpc-listen: listen tcp " + taken("6665") + ": choose another, or stop what uses it"},
		{"ax daemon --grpc-listen 127.0.0.1:0 --metrics-listen=" + net + dirs(good, good), taken("6664") + " (choose another --rest-port or --rest-listen)"},
		{"ax daemon --grpc-listen 127.0.0.1:0 --rest-port 7000" + net + dirs(good, good), "--metrics-listen: listen tcp " + taken("6666") + " (choose another port, or an empty value for none)"},
		{"registryd --state-dir " + good, "--listen: listen tcp " + taken("6665") + ": choose another, or stop what uses it; is a registryd running already?"},
		{"routerd", "--listen: listen tcp " + taken("6670") + ": choose another, or stop what uses it; is a routerd running already?"},
		{"resolverd", "--listen: listen tcp " + taken("6675") + ": choose another, or stop what uses it; is a resolverd running already?"},
		{"nodeagentd" + net + agent(good, good), "--listen: listen tcp " + taken("6680") + ": choose another, or stop what uses it; is a nodeagentd running already?"},
		{"gatewayd", "--listen: listen tcp " + taken("6685") + ": choose another, or stop what uses it; is a gatewayd running already?"},
		{"gatewayd --listen 127.0.0.1:0 --metrics-listen=", taken("6664") + " (choose another --rest-port or --rest-listen)"},

		// A kernel that is too old: setarch has uname say so.
		{"setarch --uname-2.6 ax daemon" + net + dirs(good, good), "is too old for intercepting calls: upgrade to Linux 5.14 or later"},
		{"setarch --uname-2.6 nodeagentd" + net + agent(good, good), "is too old for intercepting calls: upgrade to Linux 5.14 or later"},

		// An interface that is not there.
		{"ax daemon --node-interface nosuch0" + dirs(good, good), "nosuch0"},
		{"nodeagentd --node-interface nosuch0" + agent(good, good), "nosuch0"},
	} {
		r := lab.Run(c.line)
		lines := harness.Lines(r.Stderr)
		if len(lines) == 0 {
			lines = []string{""}
		}
		last, said := lines[len(lines)-1], 0
		for _, l := range lines {
			if !strings.HasPrefix(l, "time=") { // the rest is the log
				said++
			}
		}
		if r.Code != 1 || said != 1 || !strings.Contains(last, c.want) {
			t.Errorf("%s\nexit status %d, want 1 with one line: %s\n%s", c.line, r.Code, c.want, r.Stderr)
		}
	}
}

// tmpfs makes a file system of a size in bytes, and returns its directory.
func tmpfs(t *testing.T, lab *harness.Lab, name string, size int) string {
	t.Helper()
	dir := filepath.Dir(lab.WriteFile(name+"/x", ""))
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
		_ = os.Remove(dir)
	})
	return dir
}
