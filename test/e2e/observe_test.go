//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// TestObserve: what connects is seen as it is decided, by name and with its labels, also when the program has long ended.
func TestObserve(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "prod", "role=prod")
	lab.Serving("1.1.1.1:80", 1)
	live := lab.Start("ax observe --to 1.1.1.1 --no-headers")
	top := lab.Start("ax top services --interval 200ms -o json")
	const curl = " curl -sS --max-time 10 http://1.1.1.1/"
	lab.Output("ax run --name good --labels role=prod --" + curl)
	refused(t, lab, "without the label", "ax run --name bad --labels role=test --", "http://1.1.1.1/")

	type observed struct {
		Flow struct {
			AppName, Verdict, Reason, Errno string
			Labels                          map[string]string
		}
	}
	past := func(filter string) (out []observed) {
		for _, line := range harness.Lines(lab.Output("ax observe --follow=false -o json " + filter)) {
			var o observed
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			out = append(out, o)
		}
		return out
	}
	for filter, want := range map[string]string{
		"--to 1.1.1.1:80 --verdict deny": "[bad VERDICT_DENY no-shared-label ECONNREFUSED test]",
		"--app good":                     "[good VERDICT_ALLOW shared-label  prod]",
		"--app good --verdict deny":      "",
		"-l role=test --since 10m":       "[bad VERDICT_DENY no-shared-label ECONNREFUSED test]",
		"--to 1.1.1.1 --last 1":          "[bad VERDICT_DENY no-shared-label ECONNREFUSED test]",
	} {
		var got string
		for _, o := range past(filter) {
			got += fmt.Sprintf("[%s %s %s %s %s]", o.Flow.AppName, o.Flow.Verdict, o.Flow.Reason, o.Flow.Errno, o.Flow.Labels["role"])
		}
		equal(t, "ax observe "+filter, got, want)
	}
	// Whoever was not there yet when those connected sees these.
	lab.Eventually(runLimit, "a live watcher sees connects", func() error {
		lab.Output("ax run --name good --labels role=prod --" + curl)
		return wantText(live.Stdout(), true)
	})
	contains(t, "live", live.Stdout(), "allow")
	lab.Eventually(runLimit, "they are counted", func() error {
		lab.Output("ax run --name good --labels role=prod --" + curl)
		if !strings.Contains(top.Stdout(), `"key":"tcp://1.1.1.1:80"`) {
			return fmt.Errorf("got %s", top.Stdout())
		}
		return nil
	})
	for _, p := range []*harness.Proc{live, top} {
		p.Signal(syscall.SIGINT)
		if r := p.Wait(time.Minute); r.Code != 0 {
			t.Errorf("%s: exit status %d after Ctrl-C: %s", p, r.Code, r.Stderr)
		}
	}
}
