package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// result is how a command line ended.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a command line with nothing but env in its environment. This test's binary is the program.
func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Args = append([]string{"ax"}, args...)
	c.Env = append([]string{"HOME=/nonexistent", "AX_RUN_DIR=/nonexistent"}, env...)
	c.Dir = t.TempDir()
	var stdout, stderr strings.Builder
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}
