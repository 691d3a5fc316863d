package launch_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "appswitch.io/services/nodeagent/launch/early" // the test binary is `ax` as well
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

func within(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// ax prepares `ax run` with arguments; the run directory is dir.
func ax(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Args = append([]string{"ax"}, args...)
	c.Env = append(os.Environ(), "AX_RUN_DIR="+dir)
	return c
}

type result struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", c.Args, err)
	}
	return result{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// holders lists the holder processes of an application.
func holders(t *testing.T, appID string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && string(b) == "ax-holder\x00"+appID+"\x00" {
			found = append(found, strings.Split(f, "/")[2])
		}
	}
	return found
}

func noHolders(t *testing.T, appID string) {
	t.Helper()
	within(t, "the holder's end", func() bool { return len(holders(t, appID)) == 0 })
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	a := startAgent(t, dir, nil)
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // substrings
	}{
		{"true", []string{"run", "/bin/true"}, 0, "", ""},
		{"exit code", []string{"run", "sh", "-c", "exit 7"}, 7, "", ""},
		{"program options", []string{"run", "--", "echo", "--name", "-n"}, 0, "--name -n\n", ""},
		{"not found", []string{"run", "no-such-program"}, 127, "", "command not found"},
		{"no file", []string{"run", "/no/such/program"}, 127, "", "no such file"},
		{"directory", []string{"run", "/etc"}, 126, "", "is a directory"},
		{"no permission", []string{"run", "/etc/passwd"}, 126, "", "permission denied"},
		{"shorthand", []string{"--labels", "role=test", "echo", "hi"}, 0, "hi\n", ""},
		{"typo", []string{"run", "--curl", "-I", "1.1.1.1"}, 2, "", "ax run -- curl -I 1.1.1.1"},
		{"user", []string{"run", "--user", "nobody", "id", "-un"}, 0, "nobody\n", ""},
		{"lo", []string{"run", "ip", "-o", "addr"}, 0, "inet 198.18.0.7/32 scope", ""},
		{"socket", []string{"run", "python3", "-c", "import socket\ntry: socket.socket()\nexcept OSError as e: print(e.errno)"}, 0, "18\n", ""},
		{"no child", []string{"run", "python3", "-c", "import os\ntry: os.wait()\nexcept ChildProcessError: print('none')"}, 0, "none\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, ax(t, dir, tt.args...))
			if r.code != tt.code || !strings.Contains(r.stdout, tt.stdout) || !strings.Contains(r.stderr, tt.stderr) {
				t.Errorf("code %d, stdout %q, stderr %q; want %d, %q, %q", r.code, r.stdout, r.stderr, tt.code, tt.stdout, tt.stderr)
			}
			if tt.code == 0 && r.stderr != "" {
				t.Errorf("stderr %q", r.stderr)
			}
		})
	}
	noHolders(t, a.appID())
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
