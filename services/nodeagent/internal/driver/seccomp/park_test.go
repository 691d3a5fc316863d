package seccomp

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestInterrupted: only the same call, and only one with a time limit of the application's, is told that a signal came.
func TestInterrupted(t *testing.T) {
	accept := &call{nr: unix.SYS_ACCEPT4, args: [6]uint64{3, 1, 2}}
	other := &call{nr: unix.SYS_ACCEPT4, args: [6]uint64{4, 1, 2}}
	for what, tt := range map[string]struct {
		p    parked
		c    *call
		want bool
	}{
		"with SO_RCVTIMEO":   {parked{call: accept, timed: true}, accept, true},
		"without":            {parked{call: accept}, accept, false},
		"another listener":   {parked{call: accept, timed: true}, other, false},
		"another call":       {parked{call: accept, timed: true}, &call{nr: unix.SYS_CONNECT, args: accept.args}, false},
		"answered meanwhile": {parked{call: accept, timed: true, over: true}, accept, false},
	} {
		if got := tt.p.interrupted(tt.c); got != tt.want {
			t.Errorf("%s: %v, want %v", what, got, tt.want)
		}
	}
}
