package launch_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSignalsAsInherited starts a program with and without `ax run`, with signals ignored and blocked.
func TestSignalsAsInherited(t *testing.T) {
	dir := t.TempDir()
	startAgent(t, dir, nil)
	program := []string{"grep", "-E", "^Sig(Blk|Ign|Cgt|Pnd)", "/proc/self/status"}
	type start struct{ name, script string }
	starts := []start{
		{"nothing", `exec "$@"`},
		{"nohup", `trap '' HUP INT; exec "$@"`},
	}
	if exactSignals {
		starts = append(starts,
			start{"ignored", `trap '' HUP INT QUIT PIPE TERM CHLD USR1 TTIN TTOU; exec "$@"`},
			start{"blocked", `exec python3 -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])' "$@"`})
	}
	for _, tt := range starts {
		t.Run(tt.name, func(t *testing.T) {
			// bash can set argv[0]; it stands in the native command, too, because it unblocks SIGCHLD.
			command := func(inner ...string) *exec.Cmd {
				args := append([]string{"-c", tt.script, "sh", "bash", "-c"}, inner...)
				c := exec.CommandContext(t.Context(), "sh", append(args, program...)...)
				c.Env = append(os.Environ(), "AX_RUN_DIR="+dir)
				return c
			}
			want := run(t, command(`exec "$@"`, "bash"))
			c := command(`exec -a ax "$@"`, "bash", self(t), "run")
			if got := run(t, c); got != want {
				t.Errorf("%+v\nwant %+v", got, want)
			}
			if strings.Count(want.stdout, "\n") != 4 {
				t.Errorf("the native program shows %q", want.stdout)
			}
		})
	}
}
