//go:build e2e

package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestNothingStays runs and ends applications in every way, and then looks for what is left: rows, ports, processes,
// descriptors and goroutines of the daemon. (Every other test looks for all but the last two.)
func TestNothingStays(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	round := func() {
		server := serve(lab, "1.1.1.1", "a", "")
		killed := serve(lab, "1.1.1.2", "b", "")
		lab.Serving("1.1.1.1:80", 1)
		lab.Serving("1.1.1.2:80", 1)
		for range 5 {
			lab.Output("ax run -- curl -sS --max-time 10 http://1.1.1.1/")
		}
		// Blocked in accept, in connect to nowhere, and with a child that outlives its parent.
		lab.Output("ax run -- sh -c", "(sleep 0.5; curl -sS --max-time 10 http://1.1.1.2/) & exit 0")
		server.Stop()
		killed.Signal(syscall.SIGKILL)
		killed.Wait(runLimit)
		lab.Quiet()
	}
	round() // connections and caches that the daemon makes once
	before := usage(t, daemon)
	for range 5 {
		round()
	}
	const slack = 5 // connections of REST and gRPC come and go
	lab.Eventually(runLimit, "the daemon holds what it held before", func() error {
		after := usage(t, daemon)
		if after.Descriptors > before.Descriptors+slack || after.Goroutines > before.Goroutines+slack {
			return fmt.Errorf("after 5 rounds %+v, before %+v", after, before)
		}
		return nil
	})
}

func usage(t *testing.T, s *harness.System) harness.Usage {
	t.Helper()
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestDaemonStopsClean: a daemon that stops while applications run leaves them alive, and nothing else.
func TestDaemonStopsClean(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	server := serve(lab, "1.1.1.1", "a", "")
	lab.Serving("1.1.1.1:80", 1)
	daemon.Stop()
	if !server.Running() {
		t.Error("the application died with the daemon")
	}
	daemon.Start()
	lab.Ready()
	lab.Serving("1.1.1.1:80", 1)
	equal(t, "the application afterwards", lab.Output("ax run -- curl -sS --max-time 10 http://1.1.1.1/"), "a")
}
