//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// curlLoop makes requests one after the other, each with a curl of its own, until the file $1 exists; it prints how many
// it made and what went wrong.
const curlLoop = `
n=0 bad=0
while [ ! -e "$1" ]; do
    n=$((n + 1))
    curl -sS --max-time 60 -o /dev/null "$0" || bad=$((bad + 1))
done
echo "$n requests, $bad failed"
`

// underLoad runs disturb while an nginx serves Go clients with new connections, Go clients with lasting ones, and a shell
// loop of curls by name; none of their requests may fail.
func underLoad(t *testing.T, lab *harness.Lab, disturb func()) {
	t.Helper()
	lab.Start("ax run --ip 1.1.1.1 --name web --", nginx(lab, "nginx", "up")...)
	lab.Serving("1.1.1.1:80", 1)
	client := lab.GoProgram("goclient")
	loads := map[string]*harness.Proc{}
	for _, keepalive := range []string{"-keepalive=false", "-keepalive=true"} {
		started := lab.Path("started" + keepalive)
		loads[keepalive] = lab.Start("ax run -- "+client, "-url", "http://1.1.1.1/id", "-workers", "4", keepalive, "-progress", started)
		lab.Eventually(runLimit, "load "+keepalive, func() error { _, err := os.Stat(started); return err })
	}
	stop := lab.Path("stop")
	curls := lab.Start("ax run -- sh -c", curlLoop, "http://web/id", stop)
	time.Sleep(500 * time.Millisecond)

	disturb()

	lab.WriteFile("stop", "")
	if r := curls.Wait(2 * time.Minute); !strings.Contains(r.Stdout, " 0 failed") || strings.HasPrefix(r.Stdout, "0 ") {
		t.Errorf("curl: %s%s", r.Stdout, r.Stderr)
	}
	for name, load := range loads {
		load.Signal(syscall.SIGTERM)
		s := summarize(t, load)
		t.Logf("%s: %d requests, slowest %d ms, longest silence %d ms", name, s.Requests, s.SlowestMS, s.LongestGap)
		if s.Failures != 0 || s.Answers["up"] != s.Requests || s.Requests < 100 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestAgentKilledUnderLoad kills the daemon ten times. Calls in flight wait for the next one; connections that are
// established don't notice.
func TestAgentKilledUnderLoad(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	underLoad(t, lab, func() { killTenTimes(lab, daemon) })
}

// killTenTimes kills a daemon, starts it again, and lets it work for a moment.
func killTenTimes(lab *harness.Lab, daemon interface {
	Kill()
	Start()
}) {
	for i := range 10 {
		daemon.Kill()
		// Dead for a moment or for a while: both must pass unnoticed.
		time.Sleep(time.Duration(i%3) * 300 * time.Millisecond)
		daemon.Start()
		lab.Ready()
		time.Sleep(300 * time.Millisecond)
	}
}

// TestListenWhileAgentIsDown: a server that starts to listen while the agent is dead waits, and serves once it is back.
func TestListenWhileAgentIsDown(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	server := lab.GoProgram("goserver")
	up, down := lab.Path("up"), lab.Path("down")
	const waitThenServe = `touch "$1"; while [ ! -e "$2" ]; do sleep 0.05; done; exec "$0" -listen :80 -id late`
	lab.Start("ax run --ip 1.1.1.1 -- sh -c", waitThenServe, server, up, down)
	lab.Eventually(runLimit, "the application runs", func() error { _, err := os.Stat(up); return err })
	daemon.Kill()
	lab.WriteFile("down", "")
	time.Sleep(time.Second)
	daemon.Start()
	lab.Ready()
	lab.Serving("1.1.1.1:80", 1)
	equal(t, "the late server", lab.Output("ax run -- curl -sS --max-time 10 http://1.1.1.1/"), "late")
}

// TestAgentRestartKeepsTheTable: after a crash the tables hold what they held before, once.
func TestAgentRestartKeepsTheTable(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	serve(lab, "1.1.1.1", "a", "role=x")
	before := lab.Serving("1.1.1.1:80", 1)[0]
	for range 3 {
		daemon.Kill()
		daemon.Start()
		lab.Ready()
		after := lab.Serving("1.1.1.1:80", 1)[0]
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("after the restart: %+v, before: %+v", after, before)
		}
		equal(t, "the server", lab.Output("ax run --labels role=x -- curl -sS --max-time 10 http://1.1.1.1/"), "a")
	}
}

// TestCleanRestart: an orderly stop and start is no different for applications.
func TestCleanRestart(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	underLoad(t, lab, func() {
		for range 3 {
			daemon.Stop()
			daemon.Start()
			lab.Ready()
		}
	})
}

// TestServicesKilledUnderLoad runs every service as a process of its own and kills all but the agent, singly and together.
// What is known goes on working; what begins to listen meanwhile is published on return.
func TestServicesKilledUnderLoad(t *testing.T) {
	lab := harness.New(t)
	system := lab.StartShape(harness.Processes)
	groups := [][]string{{"registryd"}, {"routerd"}, {"resolverd"}, {"gatewayd"}, {"registryd", "routerd", "resolverd", "gatewayd"}}
	underLoad(t, lab, func() {
		for i, group := range groups {
			for _, name := range group {
				system.Part(name).Kill()
			}
			time.Sleep(500 * time.Millisecond)
			ip := fmt.Sprintf("1.1.2.%d", i+1)
			serve(lab, ip, "meanwhile", "")
			time.Sleep(time.Second)
			for _, name := range group {
				system.Part(name).Start()
			}
			lab.Ready()
			lab.Serving(ip+":80", 1)
			// The table has it; the router comes back to the registry within a second, and tells the node.
			reaches(lab, "server started while "+strings.Join(group, ", ")+" was dead", ip)
		}
	})
}

// reaches waits until a client gets an answer from an address.
func reaches(lab *harness.Lab, what, ip string) {
	lab.Eventually(runLimit, what, func() error {
		if r := lab.Run("ax run -- curl -sS --max-time 20 http://" + ip + "/"); r.Code != 0 || !strings.Contains(r.Stdout, "meanwhile") {
			return fmt.Errorf("exit status %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
}
