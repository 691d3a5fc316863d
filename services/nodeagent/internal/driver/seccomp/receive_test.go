package seccomp

import (
	"net/netip"
	"testing"

	"appswitch.io/services/nodeagent/internal/socktab"
)

// TestSourceOfLookup: the answer to a name lookup comes from where the application had asked, as far as it sees. An agent
// that was started meanwhile doesn't know where that was, and takes the first nameserver for it, never our own socket.
func TestSourceOfLookup(t *testing.T) {
	addr := netip.MustParseAddrPort
	relay, asked := addr("127.0.0.1:40001"), addr("10.0.0.3:53")
	s := socktab.Socket{Cookie: 7}
	task := &task{names: nameSocket{addr: relay}}
	if got, _, ok := task.sender(s, relay, []byte{1, 2}); !ok || got != addr("127.0.0.1:53") {
		t.Errorf("no nameservers are known: %v", got)
	}
	task.app.Nameservers = []netip.Addr{netip.MustParseAddr("10.0.0.2"), asked.Addr()}
	if got, _, ok := task.sender(s, relay, []byte{1, 2}); !ok || got != addr("10.0.0.2:53") {
		t.Errorf("asked through an earlier agent: %v", got)
	}
	task.lookups.asked(s.Cookie, []byte{1, 2}, asked)
	if got, _, ok := task.sender(s, relay, []byte{1, 2}); !ok || got != asked {
		t.Errorf("asked through this agent: %v, want %v", got, asked)
	}
}
