//go:build e2e

package e2e

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// TestAgentTimeout kills the agent for longer than calls wait for it. Each kind of call gets ENETDOWN when the time has
// passed, those made before its death and those made after it; with the next agent the same sockets work on.
func TestAgentTimeout(t *testing.T) {
	lab := harness.New(t)
	const timeout = 3 * time.Second
	daemon := lab.StartDaemon("--agent-timeout", timeout.String())
	serve(lab, "1.1.1.1", "a", "")
	lab.Serving("1.1.1.1:80", 1)
	calls := lab.Start("ax run -- "+lab.Need("python3"), lab.Program("calls.py"), lab.Path())
	lab.Eventually(runLimit, "calls wait", func() error {
		if !strings.Contains(calls.Stdout(), "ready") {
			return errors.New(calls.Stdout() + calls.Stderr())
		}
		return nil
	})
	daemon.Kill()
	died := time.Now()
	lab.WriteFile("down", "")
	kinds := strings.Fields(`waiting-accept waiting-recvfrom waiting-recvmsg waiting-connect socket socket-udp bind listen connect
		connect-service accept accept-nonblocking getsockname getpeername sendto sendmsg recvfrom recvmsg`)
	lab.Eventually(runLimit, "all calls end", func() error {
		if n := len(harness.Lines(calls.Stdout())) - 1; n < len(kinds) {
			return errors.New(calls.Stdout())
		}
		return nil
	})
	// A loaded machine may be late; nothing is early.
	const early, late = 200 * time.Millisecond, 10 * time.Second
	ends := map[string][]string{}
	for _, line := range harness.Lines(calls.Stdout()) {
		if f := strings.Fields(line); len(f) == 3 {
			ends[f[0]] = f[1:]
		}
	}
	for _, kind := range kinds {
		end := ends[kind]
		if end == nil || end[0] != "ENETDOWN" {
			t.Errorf("%s: %v, want ENETDOWN", kind, end)
			continue
		}
		at, err := strconv.ParseFloat(end[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		whole, part := math.Modf(at)
		waited := time.Unix(int64(whole), int64(part*1e9)).Sub(died)
		t.Logf("%s: after %v", kind, waited.Round(time.Millisecond))
		if waited < timeout-early || waited > timeout+late {
			t.Errorf("%s: ended %v after the agent, want %v", kind, waited, timeout)
		}
	}
	daemon.Start()
	lab.Ready()
	lab.Serving("1.1.1.1:80", 1)
	equal(t, "another program", lab.Output("ax run -- curl -sS --max-time 20 http://1.1.1.1/"), "a")
	lab.WriteFile("up", "")
	if r := calls.Wait(runLimit); r.Code != 0 || !strings.HasSuffix(strings.TrimSpace(r.Stdout), "works") {
		t.Errorf("afterwards: %+v", r)
	}
}
