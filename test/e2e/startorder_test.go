//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// TestStartOrders starts the five services in five orders, so that each is the first once, and the last once, with nobody
// there to answer the others meanwhile. A server that runs throughout is reached, and so is one that began to listen before the
// rest was there.
func TestStartOrders(t *testing.T) {
	lab := harness.New(t)
	system := lab.StartShape(harness.Processes)
	serve(lab, "1.1.1.1", "old", "")
	lab.Serving("1.1.1.1:80", 1)
	server := lab.GoProgram("goserver")
	order := []string{"registryd", "resolverd", "nodeagentd", "gatewayd", "routerd"}
	for i := range order {
		order := slices.Concat(order[i:], order[:i])
		what := strings.Join(order, ", ")
		system.Stop()
		var late *harness.Proc
		for _, name := range order {
			system.Part(name).Start()
			time.Sleep(500 * time.Millisecond)
			if name == "nodeagentd" {
				late = lab.Start("ax run --ip 1.1.1.2 -- "+server, "-listen", ":80", "-id", "late")
			}
		}
		lab.Ready()
		for ip, id := range map[string]string{"1.1.1.1": "old", "1.1.1.2": "late"} {
			lab.Serving(ip+":80", 1)
			equal(t, what+": "+id, lab.Output("ax run -- curl -sS --retry 5 --retry-connrefused --max-time 20 http://"+ip+"/"), id)
		}
		late.Stop()
		lab.Serving("1.1.1.2:80", 0)
	}
}
