package connectivity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Time that programs have.
const (
	startWait = 40 * time.Second // to start; `ax run` itself waits 30 s for an agent
	callWait  = 10 * time.Second // for a request
	stopWait  = 5 * time.Second  // to end when asked to; then they are killed
)

// maxStderr bounds what is kept of a program's complaints, in bytes.
const maxStderr = 4 << 10

// launcher starts programs under AppSwitch.
type launcher struct {
	self   string   // this binary
	runDir []string // --run-dir DIR, or nothing
}

// command is a program of this binary under `ax run`.
func (l launcher) command(ctx context.Context, options []string, args ...string) (*exec.Cmd, *complaints) {
	line := append([]string{"run"}, l.runDir...)
	line = append(line, options...)
	line = append(line, "--", l.self, "connectivity", "probe")
	cmd := exec.CommandContext(ctx, l.self, append(line, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWait
	// Ctrl-C is for the test, which then stops its programs.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said := &complaints{}
	cmd.Stderr = said
	return cmd, said
}

// server is a running server.
type server struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  *complaints
}

// serve starts a server and waits until it listens. name is also that of its address.
func (l launcher) serve(ctx context.Context, name, labels, tag string) (*server, error) {
	cmd, said := l.command(context.WithoutCancel(ctx), []string{"--name", name, "--labels", labels},
		"serve", "--port", strconv.Itoa(servedPort), "--tag", tag)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, stdin: stdin, said: said}
	listening := make(chan error, 1)
	go func() { // ends when the server says something, or ends
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != "listening" {
			err = fmt.Errorf("it said %q", line)
		}
		listening <- err
	}()
	timeout := time.NewTimer(startWait)
	defer timeout.Stop()
	select {
	case err = <-listening:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = fmt.Errorf("it does not listen after %s", startWait)
	}
	if err != nil {
		s.stop()
		if text := said.String(); text != "" {
			return nil, errors.New(text)
		}
		return nil, fmt.Errorf("start a server: %w", err)
	}
	return s, nil
}

// stop ends the server, and returns when it has ended.
func (s *server) stop() {
	_ = s.stdin.Close()
	kill := time.AfterFunc(stopWait, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	_ = s.cmd.Wait() // how it ended does not matter any more
}

// call runs a client with what a check asks for.
func (l launcher) call(ctx context.Context, c check, to string) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	args := []string{"call", "--to", to, "--bytes", strconv.Itoa(c.size)}
	if c.lookup != "" {
		args = []string{"lookup", "--name", to, "--over", c.lookup}
	}
	cmd, said := l.command(ctx, []string{"--labels", c.labels}, append(args, "--within", callWait.String())...)
	out, err := cmd.Output()
	var o Outcome
	if err == nil {
		err = json.Unmarshal(out, &o)
	}
	if text := said.String(); err != nil && text != "" {
		return o, errors.New(text)
	}
	if err != nil {
		return o, fmt.Errorf("run a client: %w", err)
	}
	return o, nil
}

// complaints keeps the start of what a program wrote to standard error.
type complaints struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write implements io.Writer.
func (c *complaints) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Write(p[:min(len(p), maxStderr-c.text.Len())])
	return len(p), nil
}

// String returns it on one line.
func (c *complaints) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(strings.Fields(c.text.String()), " ")
}
