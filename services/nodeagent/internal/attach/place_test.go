package attach

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"appswitch.io/services/nodeagent/launch/wire"
)

// child starts a process that runs until the end of the test.
func child(t *testing.T, uid uint32) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// TestProgram: whom a launcher or a holder may speak for.
func TestProgram(t *testing.T) {
	self, nobodys, others := os.Getpid(), child(t, 65534), child(t, 65533)
	for name, tc := range map[string]struct {
		from   peer
		attach wire.Attach
		want   int
	}{
		"for itself":                      {peer{pid: self}, wire.Attach{PID: self}, self},
		"for its child":                   {peer{pid: self}, wire.Attach{PID: nobodys}, nobodys},
		"not for a stranger":              {peer{pid: nobodys, uid: 65534}, wire.Attach{PID: others}, nobodys},
		"nor for one of the same user":    {peer{pid: nobodys, uid: 65533}, wire.Attach{PID: others}, nobodys},
		"a holder for its user's":         {peer{pid: nobodys, uid: 65533}, wire.Attach{PID: others, Holder: true}, others},
		"a holder not for others":         {peer{pid: nobodys, uid: 65534}, wire.Attach{PID: others, Holder: true}, nobodys},
		"root's holder for anybody":       {peer{pid: self, privileged: true}, wire.Attach{PID: others, Holder: true}, others},
		"for a process that is not there": {peer{pid: self}, wire.Attach{PID: 1 << 30, Holder: true}, self},
		"for none":                        {peer{pid: self}, wire.Attach{}, self},
	} {
		if got := program(tc.from, tc.attach); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
