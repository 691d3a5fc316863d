//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestJavaNIO: a selector on both sides, with sockets for both IP versions, which is what the JDK makes, and for IPv4 alone.
func TestJavaNIO(t *testing.T) {
	lab := node(t)
	nio := lab.Program("Nio.java")
	classes := lab.Path("classes")
	lab.Output(lab.Need("javac"), "-d", classes, nio)
	java := lab.Need("java") + " -cp " + classes + " "
	const only4 = "-Djava.net.preferIPv4Stack=true "
	server := lab.Start("ax run --ip 1.1.1.1 --name both -- " + java + "Nio serve 7000")
	lab.Start("ax run --ip 1.1.1.2 --name four -- " + java + only4 + "Nio serve 7000")
	lab.Serving("1.1.1.1:7000", 1)
	lab.Serving("1.1.1.2:7000", 1)
	clients := map[*harness.Proc]string{}
	for host, ip := range map[string]string{"1.1.1.1": "1.1.1.1", "both": "1.1.1.1", "four": "1.1.1.2"} {
		for _, stack := range []string{"", only4} {
			clients[lab.Start("ax run --ip 2.2.2.2 -- "+java+stack+"Nio echo "+host+" 7000 50 300000")] = ip
		}
	}
	for p, ip := range clients {
		out := p.Wait(runLimit).Stdout
		for _, want := range []string{"echoed 50", "/2.2.2.2:", ip + ":7000"} {
			contains(t, p.String(), out, want)
		}
	}
	contains(t, "an asynchronous channel", lab.Output("ax run -- "+java+"Nio async both 7000"), "echoed hello")
	if n := strings.Count(server.Stdout(), "accepted /1.1.1.1:7000 from /2.2.2.2:"); n != 200 {
		t.Errorf("%d connections from 2.2.2.2 to 1.1.1.1, want 200:\n%s", n, server.Stdout())
	}
	for _, call := range []string{"echo", "async"} {
		r := lab.Run("ax run -- " + java + "Nio " + call + " both 7001 1 1")
		if r.Code == 0 || !strings.Contains(r.Stderr, "Connection refused") {
			t.Errorf("%s to a closed port: %+v, want a refusal", call, r)
		}
	}
}
