//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestDrain: a server is drained under a long download. That goes on, new connects go to the other server, and the drain
// ends when the download does.
func TestDrain(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	command := nginx(lab, "one", "one")
	want := writeRandom(t, lab.Path("www", "big"), 24<<20)
	lab.Start("ax run --ip 1.1.1.1 --", command...)
	one := lab.Serving("1.1.1.1:80", 1)[0].AppID
	download := lab.Start("ax run -- sh -c", "curl -sS --limit-rate 3M http://1.1.1.1/big | sha256sum")
	lab.Eventually(runLimit, "the download has begun", func() error { return wantFlow(lab) })
	lab.Start("ax run --ip 1.1.1.1 --", nginx(lab, "two", "two")...)
	two := ""
	for _, s := range lab.Serving("1.1.1.1:80", 2) {
		if s.AppID != one {
			two = s.AppID
		}
	}
	id := func() string { return lab.Output("ax run -- curl -sS --max-time 10 http://1.1.1.1/id") }

	drain := lab.Start("ax drain app " + one + " --wait --limit 50s")
	lab.Eventually(runLimit, "it is drained", func() error { return wantText(drain.Stdout(), true) })
	lab.Eventually(runLimit, "routes say so", func() error {
		_, _, candidates := explain(t, lab, "1.1.1.1:80")
		return wantText(strings.TrimSuffix(reasons(candidates), "draining shared-label"), false)
	})
	for range 15 {
		equal(t, "who answers", id(), "two")
	}
	if !download.Running() || !drain.Running() {
		t.Error("the download, or the drain, has ended too early to tell")
	}
	contains(t, "ax get servers -o wide", lab.Output("ax get servers -o wide"), "draining")
	sum, _, _ := strings.Cut(download.Wait(runLimit).Stdout, " ")
	equal(t, "what was downloaded meanwhile", sum, want)
	r := drain.Wait(runLimit)
	equal(t, "ax drain --wait", r.Stdout, "Application '"+appName(t, lab, one)+"' ("+one+") is being drained.\nConnections left: 1\nConnections left: 0\n")
	if r.Code != 0 {
		t.Errorf("ax drain: exit status %d: %s", r.Code, r.Stderr)
	}

	// What is drained stays so when the agent is killed.
	daemon.Kill()
	daemon.Start()
	lab.Ready()
	lab.Serving("1.1.1.1:80", 2)
	for range 10 {
		equal(t, "who answers after a restart", id(), "two")
	}
	lab.Output("ax drain app " + two)
	lab.Eventually(runLimit, "nobody takes connections", func() error {
		verdict, reason, _ := explain(t, lab, "1.1.1.1:80")
		return wantText(strings.TrimPrefix(verdict+" "+reason, "VERDICT_DENY draining"), false)
	})
	refused(t, lab, "everything is drained", "ax run --", "http://1.1.1.1/id")
	lab.Output("ax drain app " + one + " --undo")
	lab.Eventually(runLimit, "one takes connections again", func() error {
		verdict, _, _ := explain(t, lab, "1.1.1.1:80")
		return wantText(strings.TrimPrefix(verdict, "VERDICT_ALLOW"), false)
	})
	equal(t, "who answers", id(), "one")

	lab.Output("ax drain node " + harness.NodeName + " --wait --limit 30s")
	refused(t, lab, "the node is drained", "ax run --", "http://1.1.1.1/id")
	lab.Output("ax drain node " + harness.NodeName + " --undo")
	lab.Eventually(runLimit, "the node takes connections again", func() error {
		verdict, _, _ := explain(t, lab, "1.1.1.1:80")
		return wantText(strings.TrimPrefix(verdict, "VERDICT_ALLOW"), false)
	})
	equal(t, "who answers: two is still drained by itself", id(), "one")
	if r := lab.Run("ax drain app nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, `no application "nosuch"`) {
		t.Errorf("ax drain app nosuch: %+v", r)
	}
}

// wantFlow is nil once somebody has connected.
func wantFlow(lab *harness.Lab) error {
	return wantText(lab.Output("ax observe --follow=false -o json --to 1.1.1.1"), true)
}

func appName(t *testing.T, lab *harness.Lab, id string) string {
	t.Helper()
	apps, err := lab.Apps()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apps {
		if a.ID == id {
			return a.Name
		}
	}
	t.Fatalf("no application %s", id)
	return ""
}
