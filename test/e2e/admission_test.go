//go:build e2e

package e2e

import (
	"strings"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestAdmission: a normal user claims what a rule of the configuration grants, and nothing else, whatever the user pretends
// to be; with the defaults everybody runs programs.
func TestAdmission(t *testing.T) {
	lab := harness.New(t)
	config := lab.WriteFile("ax.yaml", "admit: []\n")
	daemon := lab.StartDaemonIn(nil, "--config", config)
	user, other := lab.User(normalUser), lab.User(normalUser+1)
	run := "ax run --run-dir " + lab.RunDir() + " "

	for _, line := range []string{"-- true", "--labels zone=default -- true", "--new-netns=false -- true"} {
		if r := user.Run(run + line); r.Code != 0 {
			t.Errorf("anybody may %s: %+v", line, r)
		}
	}
	denied := func(who *harness.Lab, before, options, want string) {
		t.Helper()
		r := who.Run(before + run + options + " -- true")
		if r.Code != 125 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s%s: %+v, want a refusal with %q", before, options, r, want)
		}
	}
	for options, rule := range map[string]string{
		"--ip 1.1.1.1": "ip=1.1.1.1", "--labels role=prod": "label=role=prod", "--name web": "name=web",
		"--ip 1.1.1.1 --name web --labels role=prod": "ip=1.1.1.1 name=web label=role=prod",
	} {
		denied(user, "", options, "user 1001 may not claim "+options+":")
		denied(user, "", options, "admit:\n  - uid=1001 "+rule+"\n")
	}
	// Root of a user namespace, and number 1 of a process-id namespace with a /proc of its own, is still that user.
	for _, disguise := range []string{"unshare -Ur ", "unshare -Ur --pid --fork --kill-child --mount-proc ", "unshare -Ur unshare -Ur "} {
		denied(user, disguise, "--ip 1.1.1.1", "user 1001 may not claim --ip 1.1.1.1:")
		denied(user, disguise, "--labels role=prod", "user 1001 may not claim --labels role=prod:")
	}
	// Root as a container has it, and root in a user namespace that root made, are not root of the host.
	denied(lab, "setpriv --bounding-set=-sys_admin ", "--ip 1.1.1.1", "user 0 may not claim --ip 1.1.1.1:")
	denied(lab, "unshare -Ur ", "--ip 1.1.1.1", "user 0 may not claim --ip 1.1.1.1:")
	contains(t, "metrics", lab.Metrics("claims_refused"), `claim="ip"`)
	contains(t, "log", daemon.Log(), "claim refused")

	reload := func(content, want string) {
		t.Helper()
		lab.WriteFile("ax.yaml", content)
		if err := syscall.Kill(daemon.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(runLimit, "the rules are loaded", func() error { return wantText(find(daemon.Log(), want), true) })
	}
	const rules = "admit:\n  - uid=1001 ip=1.1.1.0/24 name=web-* label=role=prod\n  - cgroup=/nowhere/** ip=0.0.0.0/0\n"
	reload(rules, "option changed")
	for _, disguise := range []string{"", "unshare -Ur "} {
		if r := user.Run(disguise + run + "--ip 1.1.1.1 --name web-1 --labels role=prod -- true"); r.Code != 0 {
			t.Errorf("%sgranted: %+v", disguise, r)
		}
	}
	denied(user, "", "--ip 1.1.2.1", "may not claim --ip 1.1.2.1:")
	denied(user, "", "--ip 1.1.1.1 --labels role=test", "may not claim --labels role=test:")
	denied(other, "", "--ip 1.1.1.1", "user 1002 may not claim")
	contains(t, "ax config view", lab.Output("ax config view --changed --config "+config), "uid=1001 ip=1.1.1.0/24 name=web-* label=role=prod")

	// A mistake changes nothing.
	reload("admit: ['uid=1001 ip=1.1.1']\n", "options not reloaded")
	contains(t, "log", daemon.Log(), "--admit: rule 1")
	if r := user.Run(run + "--ip 1.1.1.1 -- true"); r.Code != 0 {
		t.Errorf("after a reload with a mistake: %+v", r)
	}
	if r := lab.Run("ax daemon --config " + config); r.Code != 2 || !strings.Contains(r.Stderr, "--admit: rule 1") {
		t.Errorf("start with a mistake: %+v", r)
	}
}

// find returns text if it is in a log.
func find(log, text string) string {
	if strings.Contains(log, text) {
		return text
	}
	return ""
}
