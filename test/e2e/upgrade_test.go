//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// TestUpgrade replaces the agent by one of another version under load, there and back again, in an orderly way and by
// SIGKILL. No request fails. A server that the older `ax run` has started, whose holder is of that version, is
// served by all of them, and so is one that was launched by this version while the older agent ran.
func TestUpgrade(t *testing.T) {
	lab := harness.New(t)
	ax, older, version := lab.OlderPrograms()
	if version == "" {
		version = "this one, built otherwise: git does not have " + harness.Older
	}
	t.Logf("the older version: %s", version)
	agent := lab.StartShape(harness.Processes).Part("nodeagentd")
	server := lab.GoProgram("goserver")
	const newer = "nodeagentd"
	programs := map[string]string{"the older": older, "this": newer}

	agent.Stop()
	agent.Replace(older)
	agent.Start()
	lab.Ready()
	lab.Start(ax+" run --ip 1.1.2.1 -- "+server, "-listen", ":80", "-id", "meanwhile")
	lab.Start("ax run --ip 1.1.2.2 -- "+server, "-listen", ":80", "-id", "meanwhile")
	addresses := []string{"1.1.2.1", "1.1.2.2"}
	underLoad(t, lab, func() {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			for _, to := range []string{"this", "the older", "this"} {
				if signal == syscall.SIGKILL {
					agent.Kill()
				} else {
					agent.Stop()
				}
				agent.Replace(programs[to])
				agent.Start()
				lab.Ready()
				time.Sleep(500 * time.Millisecond)
				ip := fmt.Sprintf("1.1.2.%d", len(addresses)+1)
				addresses = append(addresses, ip)
				serve(lab, ip, "meanwhile", "")
				for _, ip := range slices.Backward(addresses) {
					lab.Serving(ip+":80", 1)
					reaches(lab, fmt.Sprintf("%s after the change to %s agent by %v", ip, to, signal), ip)
				}
			}
		}
	})
}
