package check

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine makes a proc file system out of files; those with "->" in front are links.
func machine(t *testing.T, files map[string]string) Options {
	t.Helper()
	o := DefaultOptions()
	o.Proc = t.TempDir()
	for name, content := range files {
		path := filepath.Join(o.Proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(path, []byte(content), 0o644)
		if target, link := strings.CutPrefix(content, "->"); link {
			_ = os.Remove(path)
			err = os.Symlink(target, path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func want(t *testing.T, r Result, state State, detail string) {
	t.Helper()
	if r.State != state || !strings.Contains(r.Detail, detail) {
		t.Errorf("got %+v, want %s with %q", r, state, detail)
	}
	if (r.Fix == "") != (r.State == OK) {
		t.Errorf("%+v: what is not fine needs a fix, and only that", r)
	}
}

func TestKernel(t *testing.T) {
	for release, state := range map[string]State{
		"5.4.0-150-generic":      Failed,
		"5.13.9":                 Failed,
		"5.14.0-362.el9":         Warning,
		"6.1.0-18-amd64":         Warning,
		"6.6.0":                  OK,
		"7.0-rc1":                OK,
		"something":              Warning,
		"6.x":                    Warning,
		"99999999999999999999.1": Warning,
	} {
		o := machine(t, map[string]string{"sys/kernel/osrelease": release + "\n"})
		want(t, o.kernel(), state, "")
	}
	want(t, machine(t, nil).kernel(), Failed, "osrelease")
}

func TestPrivileges(t *testing.T) {
	for _, tc := range []struct {
		caps, user string
		state      State
		detail     string
	}{
		{"000001ffffffffff", hostUserNamespace, OK, "root"},
		{"000001ffffffffff", "user:[4026532000]", Warning, "user namespace"},
		{"0000000000000000", hostUserNamespace, Warning, "this user only"},
		{"00000000a80425fb", hostUserNamespace, Failed, "SYS_ADMIN, SYS_PTRACE, NET_ADMIN"}, // docker's default set
		{"nonsense", hostUserNamespace, Warning, "unreadable"},
	} {
		o := machine(t, map[string]string{"self/status": "Name:\tx\nCapEff:\t" + tc.caps + "\n", "self/ns/user": "->" + tc.user})
		want(t, o.privileges(), tc.state, tc.detail)
	}
}

func TestNamespaces(t *testing.T) {
	host := map[string]string{"self/ns/pid": "->" + hostPIDNamespace, "self/ns/net": "->net:[1]", "2/comm": "kthreadd\n", "2/ns/net": "->net:[1]"}
	want(t, machine(t, host).pidNamespace(), OK, "")
	want(t, machine(t, host).netNamespace(), OK, "")

	container := map[string]string{"self/ns/pid": "->pid:[4026532001]", "self/ns/net": "->net:[2]", "2/comm": "kthreadd\n", "2/ns/net": "->net:[1]"}
	want(t, machine(t, container).pidNamespace(), Failed, "would not see")
	want(t, machine(t, container).netNamespace(), Warning, "not the host's")

	// Some process is number 2, and there is no looking at number 1.
	want(t, machine(t, map[string]string{"self/ns/net": "->net:[2]", "2/comm": "sh\n", "2/ns/net": "->net:[2]"}).netNamespace(), Warning, "can't be compared")
}

func TestRestrictions(t *testing.T) {
	yama := func(scope string) Options {
		return machine(t, map[string]string{"sys/kernel/yama/ptrace_scope": scope + "\n"})
	}
	want(t, machine(t, nil).ptrace(false), OK, "not restricted")
	want(t, yama("0").ptrace(false), OK, "is 0")
	want(t, yama("1").ptrace(true), OK, "is 1")
	want(t, yama("1").ptrace(false), Warning, "is 1")
	want(t, yama("3").ptrace(true), Failed, "is 3")
	hidden := machine(t, map[string]string{"self/mounts": "proc /proc proc rw,hidepid=2 0 0\n"})
	want(t, hidden.processes(true), OK, "")
	want(t, hidden.processes(false), Warning, "hidepid")
	want(t, machine(t, nil).seccompAction(), Failed, "seccomp is not available")
	if !tryUserNamespace() {
		t.Error("no user namespace can be made")
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	want(t, directory("d", dir), OK, "can be written")
	want(t, directory("d", filepath.Join(dir, "a", "b")), OK, "can be made")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, directory("d", file), Failed, "is not a directory")
	want(t, directory("d", filepath.Join(file, "below")), Failed, "not a directory")
	want(t, directory("d", "/proc/appswitch"), Failed, "/proc")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the checks left %v, %v", left, err)
	}
}

func TestPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	number := uint16(l.Addr().(*net.TCPAddr).Port)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	holder := fmt.Sprintf("is in use by %s, process %d", strings.TrimSpace(string(comm)), os.Getpid())
	o := DefaultOptions()
	want(t, o.port(context.Background(), Port{Number: number, Use: "x"}), Failed, holder)
	want(t, o.port(context.Background(), Port{Number: number, Use: "x", Optional: true}), Warning, holder)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, o.port(context.Background(), Port{Number: number, Use: "x", UDP: true}), OK, "is free")

	c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want(t, o.port(context.Background(), Port{Number: number, Use: "x"}), OK, "is free")
	want(t, o.port(context.Background(), Port{Number: number, Use: "x", UDP: true}), Failed, holder)
}

// TestThisMachine tries the kernel for real: the user driver's own tests need the same.
func TestThisMachine(t *testing.T) {
	want(t, DefaultOptions().seccompAction(), OK, "")
	results := seccompListener()
	if len(results) != 2 {
		t.Fatalf("got %v", results)
	}
	for _, r := range results {
		want(t, r, OK, "")
	}
	want(t, sockDiag(context.Background()), OK, "")

	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	want(t, DefaultOptions().newNetNamespace(true), OK, "")
	all := Run(context.Background(), DefaultOptions())
	if len(all) != 14+len(DefaultPorts()) {
		t.Errorf("got %d results: %v", len(all), all)
	}
	// The filters and the namespace went with their threads.
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil || !strings.Contains(string(status), "Seccomp_filters:\t0") || !strings.Contains(string(status), "NoNewPrivs:\t0") {
		t.Errorf("a filter stayed: %v\n%s", err, status)
	}
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("network namespace %s, was %s: %v", after, before, err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		strays := threadsOutside(t, before)
		if len(strays) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads %v are left outside %s", strays, before)
		}
	}
}

// threadsOutside lists the threads of this process that are in another network namespace than ns.
func threadsOutside(t *testing.T, ns string) []string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(tasks, func(task string) bool {
		is, err := os.Readlink(task)
		return err != nil || is == ns // a thread that ends meanwhile is none
	})
}

func TestReady(t *testing.T) {
	if !Ready([]Result{{State: OK}, {State: Warning}}) || Ready([]Result{{State: OK}, {State: Failed}}) {
		t.Error("only a failed check makes a machine unready")
	}
}
