//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestExec: a command inside an application's namespaces shares its loopback, has its address and its labels, and ends as
// it would by itself.
func TestExec(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --name inner --labels role=prod --", lab.GoProgram("goserver"), "-listen", "127.0.0.1:9000", "-id", "inner")
	lab.Start("ax run --ip 2.2.2.2 --name other --labels role=prod --", lab.GoProgram("goserver"), "-listen", ":80", "-id", "other")
	lab.Start("ax run --ip 3.3.3.3 --name alien --labels role=test --", lab.GoProgram("goserver"), "-listen", ":80", "-id", "alien")
	lab.Serving("2.2.2.2:80", 1)
	lab.Serving("3.3.3.3:80", 1)
	lab.Eventually(runLimit, "the application is known and serves its loopback", func() error {
		r := lab.Run("ax exec inner -- curl -sS --max-time 10 http://127.0.0.1:9000/")
		return wantText(r.Stdout, true)
	})
	const curl = " curl -sS --max-time 10 "
	equal(t, "its loopback", lab.Output("ax exec inner"+curl+"http://127.0.0.1:9000/"), "inner")
	equal(t, "its labels, and names", lab.Output("ax exec inner --"+curl+"http://other/"), "other")
	equal(t, "its address", lab.Output("ax exec inner --"+curl+"-o /dev/null -w %{local_ip} http://2.2.2.2/"), "1.1.1.1")
	refused(t, lab, "what its labels do not allow", "ax exec inner --", "http://3.3.3.3/")
	refused(t, lab, "the loopback of others", "ax exec other --", "http://127.0.0.1:9000/")
	if r := lab.Run("ax exec inner -- sh -c", "exit 7"); r.Code != 7 {
		t.Errorf("exit status %d, want that of the command", r.Code)
	}
	if r := lab.Run("ax exec inner -- nosuchprogram"); r.Code != 127 {
		t.Errorf("exit status %d, want 127 for a command that is not there", r.Code)
	}
	// In a container there are process ids too.
	lab.Start("unshare --pid --fork --kill-child --mount-proc ax run --ip 4.4.4.4 --name boxed --labels role=prod --", lab.GoProgram("goserver"), "-listen", ":80", "-id", "boxed")
	lab.Serving("4.4.4.4:80", 1)
	equal(t, "in a namespace of process ids", lab.Output("ax exec boxed --"+curl+"http://127.0.0.1/"), "boxed")
	equal(t, "its first process", strings.TrimSpace(lab.Output("ax exec boxed -- sh -c", "grep -c goserver /proc/1/cmdline")), "1")
	if r := lab.Run("ax exec boxed -- sh -c", "exit 7"); r.Code != 7 {
		t.Errorf("exit status %d from another namespace of process ids", r.Code)
	}
	if r := lab.Run("ax exec innner -- true"); r.Code != 1 || !strings.Contains(r.Stderr, `no app "innner": did you mean inner?`) {
		t.Errorf("an unknown application: %d, %s", r.Code, r.Stderr)
	}
}
