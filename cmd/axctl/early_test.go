package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// initialised runs this test's binary, which links what axctl links, and returns the packages initialised, in order,
// until it exits.
func initialised(t *testing.T, args ...string) (packages []string, code int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Args = append([]string{"ax"}, args...)
	c.Env = []string{"GODEBUG=inittrace=1", "AX_RUN_DIR=/nonexistent"}
	var stderr strings.Builder
	c.Stderr = &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(stderr.String()) {
		// init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs
		if rest, ok := strings.CutPrefix(line, "init "); ok {
			name, _, _ := strings.Cut(rest, " @")
			packages = append(packages, name)
		}
	}
	return packages, c.ProcessState.ExitCode()
}

// foreign picks the packages that are neither the standard library's nor the launcher's.
func foreign(packages []string) []string {
	var found []string
	for _, p := range packages {
		first, _, _ := strings.Cut(p, "/")
		if strings.Contains(first, ".") && !strings.HasPrefix(p, "appswitch.io/services/nodeagent/launch") {
			found = append(found, p)
		}
	}
	return found
}

// TestLaunchComesFirst: `ax run` must have ended before anything else is initialised, because starting a program may
// cost milliseconds only.
func TestLaunchComesFirst(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"run", "true"}, 125}, // there is no agent
		{[]string{"--labels", "role=test", "true"}, 125},
		{[]string{"run", "--no-such-option"}, 2},
		{[]string{"run", "no-such-program"}, 127},
	} {
		packages, code := initialised(t, tt.args...)
		if code != tt.code {
			t.Errorf("ax %s: exit code %d, want %d", strings.Join(tt.args, " "), code, tt.code)
		}
		if early := foreign(packages); len(early) > 0 {
			t.Errorf("ax %s: initialised before the launch: %v", strings.Join(tt.args, " "), early)
		}
		if len(packages) == 0 {
			t.Error("no trace of initialisations")
		}
	}
	// The binary does contain what must not come first.
	packages, _ := initialised(t, "-test.run=^$")
	if all := strings.Join(foreign(packages), " "); !strings.Contains(all, "go.etcd.io/") || !strings.Contains(all, "google.golang.org/grpc") {
		t.Errorf("the binary initialises only %s", all)
	}
}
