//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// crashClient connects by address with a blocking socket, and by name with whatever curl uses; it shows the
// addresses on both sides, and what it got.
const crashClient = `
python3 -c 'import socket, sys
s = socket.socket()
s.connect((sys.argv[1], 80))
peer = s.getpeername()
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while chunk := s.recv(4096): answer += chunk
print(s.getsockname()[0], peer[0], answer.splitlines()[-1].decode())
' "$1"
curl -sS --max-time 30 -w '%{local_ip} %{remote_ip}\n' "http://$2/"
`

// crashPoints reads the names of the marks from their source: the package is the agent's own.
func crashPoints(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("../../services/nodeagent/internal/crashpoint/crashpoint.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`Name = "([a-z-]+)"`).FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) < 10 {
		t.Fatalf("only %d crash points found: %v", len(names), names)
	}
	return names
}

// TestCrashPoints lets the agent crash at each instant that is awkward, while a server starts and a client asks it: both go
// on with the next agent as if nothing had happened.
func TestCrashPoints(t *testing.T) {
	lab := harness.New(t)
	lab.Need("python3")
	agent := lab.StartShape(harness.Processes).Part("nodeagentd")
	agent.Stop()
	agent.Replace(lab.CrashingAgent())
	for i, point := range crashPoints(t) {
		agent.StartWith("APPSWITCH_CRASH_AT=" + point)
		ip, name := fmt.Sprintf("1.1.3.%d", i+1), "crash-"+point
		lab.Start(fmt.Sprintf("ax run --ip %s --name %s --", ip, name), lab.GoProgram("goserver"), "-listen", ":80", "-id", "up")
		crashes := survive(t, lab, agent, func() bool { return listening(lab, ip+":80") })
		lab.Serving(ip+":80", 1)
		client := lab.Start("ax run --ip 2.2.2.2 -- sh -c", crashClient, "sh", ip, name)
		crashes += survive(t, lab, agent, func() bool { return !client.Running() })
		r := client.Wait(time.Minute)
		if want := "2.2.2.2 " + ip + " up\nup\n2.2.2.2 " + ip + "\n"; r.Code != 0 || r.Stdout != want {
			t.Errorf("%s: exit status %d, output %q, want %q; %s", point, r.Code, r.Stdout, want, r.Stderr)
		}
		if crashes != 1 {
			t.Errorf("%s: the agent crashed %d times, want 1", point, crashes)
		}
		agent.Stop()
	}
	agent.Start()
	lab.Ready()
}

func listening(lab *harness.Lab, address string) bool {
	servers, err := lab.Servers()
	if err != nil {
		return false
	}
	for _, s := range servers {
		if s.ServiceAddress.String() == address {
			return true
		}
	}
	return false
}

// survive waits until done, starts the agent again when it has crashed, and returns how often that was.
func survive(t *testing.T, lab *harness.Lab, agent *harness.Daemon, done func() bool) (crashes int) {
	t.Helper()
	lab.Eventually(runLimit, "what the agent crashed under goes on", func() error {
		if agent.Crashed() {
			crashes++
			agent.Start()
		}
		if !done() {
			return errors.New("still waiting")
		}
		return nil
	})
	return crashes
}
