package service

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childVariable makes the test binary behave as a daemon; its value says how the daemon ends.
const childVariable = "DEMOD_CHILD"

func TestMainUnderSignals(t *testing.T) {
	if how := os.Getenv(childVariable); how != "" {
		var cfg demoConfig
		os.Args = []string{"demod", "--listen=127.0.0.1:0", "--metrics-listen="}
		Main(demoSpec(&cfg, nil, func(Env) (Service, error) {
			return &demo{run: func(ctx context.Context) error {
				<-ctx.Done()
				if how == "stuck" {
					select {}
				}
				return nil
			}}, nil
		}))
	}
	for _, c := range []struct {
		how     string
		signals []syscall.Signal
		code    int
		want    string
	}{
		{"orderly", []syscall.Signal{syscall.SIGTERM}, ExitOK, `reason="received terminated"`},
		{"orderly", []syscall.Signal{syscall.SIGINT}, ExitOK, `reason="received interrupt"`},
		{"stuck", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, ExitError, ""},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMainUnderSignals$")
		cmd.Env = append(os.Environ(), childVariable+"="+c.how)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stderr)
		first, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(first, "serving gRPC") {
			t.Errorf("%s: first line %q, %v", c.how, first, err)
		}
		for i, s := range c.signals {
			if i > 0 {
				time.Sleep(200 * time.Millisecond) // two of a kind sent at once are one
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Error(err)
			}
		}
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		rest, _ := io.ReadAll(lines)
		_ = cmd.Wait() // the exit code tells
		late.Stop()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(rest), c.want) {
			t.Errorf("%s after %v: exit code %d, want %d; log:\n%s", c.how, c.signals, code, c.code, rest)
		}
	}
}
