//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestConnectivity: the test that users run passes on a machine that is well, and fails on one that is not.
func TestConnectivity(t *testing.T) {
	lab := node(t)
	out := lab.Output("ax connectivity test")
	lines := harness.Lines(out)
	if len(lines) < 16 || strings.Contains(out, "✗") {
		t.Errorf("ax connectivity test:\n%s", out)
	}
	for _, line := range harness.Lines(lab.Output("ax connectivity test -o json")) {
		var r struct {
			Check string `json:"check"`
			OK    bool   `json:"ok"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || !r.OK || r.Check == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
	// Without names the servers can't be started.
	if r := lab.Run("ax connectivity test --run-dir " + lab.Path("nowhere")); r.Code != 1 || !strings.Contains(r.Stderr, "the AppSwitch daemon is not running here") {
		t.Errorf("without an agent: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
