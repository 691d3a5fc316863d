package launch_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/services/nodeagent/launch/wire"
)

// TestInPlace: the program is the process that was started, and finds what it would have found without `ax run`.
func TestInPlace(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	c := ax(t, dir, "run", "sh", "-c", "echo $$; exec sleep 100")
	s := start(t, c)
	line, err := s.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != strconv.Itoa(c.Process.Pid) {
		t.Errorf("pid %q, %v; want %d", line, err, c.Process.Pid)
	}
	if at := a.attaches[0]; at.PID != c.Process.Pid || at.Holder || !at.Hello.NewNetns || !at.Hello.DNS {
		t.Errorf("attached: %+v", at)
	}
	id := a.appID()
	holderOf(t, id)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want SIGTERM", err)
	}
	noHolders(t, id)

	for _, script := range []string{
		"ulimit -n; ulimit -Sn; ulimit -u",
		"umask; pwd; nice",
		"env | grep -v '^_=' | sort",
		"grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Cpus_allowed):' /proc/self/status",
		"ls /proc/$$/task | wc -l",
	} {
		program := []string{"sh", "-c", script}
		native := exec.CommandContext(t.Context(), program[0], program[1:]...)
		native.Env = append(os.Environ(), "AX_RUN_DIR="+dir)
		want := run(t, native)
		if got := run(t, ax(t, dir, append([]string{"run"}, program...)...)); got != want {
			t.Errorf("%s: %+v, natively %+v", script, got, want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	dir := t.TempDir()
	const nameserver = "nameserver 192.0.2.1\n"
	if err := os.WriteFile(filepath.Join(dir, wire.ResolvConfName), []byte(nameserver), 0o600); err != nil {
		t.Fatal(err)
	}
	startAgent(t, dir, func(a *fakeAgent) { a.welcome.ResolvConf = true })
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		args   string
		script string
		want   func(stdout string) bool
	}{
		{"new", "", "readlink /proc/self/ns/net", func(s string) bool { return strings.HasPrefix(s, "net:[") && s != own+"\n" }},
		{"present", "--new-netns=false", "readlink /proc/self/ns/net", func(s string) bool { return s == own+"\n" }},
		{"lo", "", "ip -o addr show dev lo", func(s string) bool {
			return strings.Contains(s, "127.0.0.1/8") && strings.Contains(s, "198.18.0.7/32")
		}},
		{"lo is up", "", "cat /sys/class/net/lo/flags; ip -o link show dev lo", func(s string) bool { return strings.Contains(s, "LOOPBACK,UP") }},
		{"device", "--interface eth7", "ip -o addr", func(s string) bool {
			return strings.Contains(s, "eth7    inet 198.18.0.7/32") && strings.Count(s, "198.18.0.7/32") == 1 && strings.Contains(s, "127.0.0.1/8")
		}},
		{"names", "", "cat /etc/resolv.conf", func(s string) bool { return s == nameserver }},
		{"names in present", "--no-new-netns", "cat /etc/resolv.conf", func(s string) bool { return s == nameserver }},
		{"own names", "--dns-override=false", "cat /etc/resolv.conf", func(s string) bool { return s == string(host) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"run"}, strings.Fields(tt.args)...)
			r := run(t, ax(t, dir, append(args, "sh", "-c", tt.script)...))
			if r.code != 0 || r.stderr != "" || !tt.want(r.stdout) {
				t.Errorf("%+v", r)
			}
		})
	}
	if after, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(after) != string(host) {
		t.Errorf("the host's resolv.conf has changed: %q, %v", after, err)
	}
}

// TestIPv6: the address is usable at once, and the IPv4 address that goes with it is there too.
func TestIPv6(t *testing.T) {
	dir := t.TempDir()
	startAgent(t, dir, func(a *fakeAgent) { a.welcome.IP, a.welcome.Second = "2001:db8::7", "10.0.0.1" })
	for device, args := range map[string][]string{"lo": nil, "eth7": {"--interface", "eth7"}} {
		r := run(t, ax(t, dir, append(append([]string{"run"}, args...), "ip", "-o", "addr", "show", "dev", device)...))
		for _, want := range []string{"2001:db8::7/128 scope global", "10.0.0.1/32"} {
			if r.code != 0 || !strings.Contains(r.stdout, want) || strings.Contains(r.stdout, "global tentative") {
				t.Errorf("%s: want %s: %+v", device, want, r)
			}
		}
	}
}

func TestUser(t *testing.T) {
	dir := openDir(t)
	startAgent(t, dir, nil)
	report := "id -u; id -g; id -G; echo $HOME $USER $LOGNAME"
	for who, want := range map[string]string{
		"nobody": "65534\n65534\n65534\n/nonexistent nobody nobody\n",
		"65534":  "65534\n65534\n65534\n/nonexistent nobody nobody\n",
		"54321":  "54321\n54321\n54321\n/ 54321 54321\n",
		"root":   "0\n0\n0\n/root root root\n",
	} {
		c := ax(t, dir, "run", "--user", who, "sh", "-c", report)
		c.Dir = "/"
		if r := run(t, c); r.code != 0 || r.stdout != want || r.stderr != "" {
			t.Errorf("%s: %+v, want %q", who, r, want)
		}
	}
	if r := run(t, ax(t, dir, "run", "--user", "no-such-user", "true")); r.code != 2 || !strings.Contains(r.stderr, "--user no-such-user: no such user") {
		t.Errorf("%+v", r)
	}
}

func TestNested(t *testing.T) {
	dir := t.TempDir()
	startAgent(t, dir, nil)
	// The inner one gets far enough to find the outer one's filter: the fake agent lets AF_UNIX through.
	r := run(t, ax(t, dir, "run", "bash", "-c", "exec -a ax "+self(t)+" run true"))
	if r.code != 125 || !strings.Contains(r.stderr, "already under a seccomp listener") {
		t.Errorf("%+v", r)
	}
}

func TestAgentErrors(t *testing.T) {
	dir := t.TempDir()
	if r := run(t, ax(t, dir, "run", "true")); r.code != 125 || !strings.Contains(r.stderr, "the AppSwitch daemon is not running here") {
		t.Errorf("no socket: %+v", r)
	}
	if r := run(t, ax(t, strings.Repeat("/x", 60), "run", "true")); r.code != 125 || !strings.Contains(r.stderr, "too long for a socket's name") {
		t.Errorf("long path: %+v", r)
	}
	a := startAgent(t, dir, func(a *fakeAgent) {
		a.refuse = &wire.Error{Code: wire.CodeInvalid, Message: `--ip "x": want an address`}
	})
	if r := run(t, ax(t, dir, "run", "--ip", "x", "true")); r.code != 2 || r.stderr != "ax run: --ip \"x\": want an address\n" {
		t.Errorf("refused: %+v", r)
	}
	a.stop()
	a = startAgent(t, dir, func(a *fakeAgent) { a.deny = &wire.Error{Code: wire.CodeDenied, Message: "not you"} })
	if r := run(t, ax(t, dir, "run", "true")); r.code != 125 || r.stderr != "ax run: not you\n" {
		t.Errorf("attachment refused: %+v", r)
	}
	noHolders(t, a.appID())
}

// TestAgentLate: `ax run` waits for an agent that is being restarted.
func TestAgentLate(t *testing.T) {
	dir := t.TempDir()
	startAgent(t, dir, nil).stop() // its socket stays behind
	done := make(chan result, 1)
	c := ax(t, dir, "run", "echo", "hi")
	go func() {
		out, err := c.Output()
		r := result{stdout: string(out)}
		if err != nil {
			r.stderr = err.Error()
		}
		done <- r
	}()
	time.Sleep(100 * time.Millisecond)
	// First one that can't serve yet.
	a := startAgent(t, dir, func(a *fakeAgent) { a.refuse = &wire.Error{Code: wire.CodeUnavailable, Message: "starting"} })
	a.wait("a greeting", func() bool { return len(a.hellos) > 0 })
	a.stop()
	// Then one that forgets whom it has greeted.
	a = startAgent(t, dir, func(a *fakeAgent) { a.forget = 1 })
	if r := <-done; r.stdout != "hi\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	a.wait("the second identity to attach", func() bool { return len(a.attaches) > 0 && len(a.hellos) == 2 })
}
