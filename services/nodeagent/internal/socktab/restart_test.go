package socktab

import (
	"testing"

	"appswitch.io/internal/ax"
)

// restarted is the table of the next agent.
func restarted(j *memJournal, alive ...uint64) *Table {
	after := newTable(j)
	for slot, data := range j.records {
		after.Restore(slot, data, func(cookie uint64) bool {
			for _, c := range alive {
				if c == cookie {
					return true
				}
			}
			return false
		}, start)
	}
	return after
}

// TestBindAgain: an agent died in the middle of a bind, and the next one carries it out again. The socket is reached over
// loopback then, also when it is the only one of its scope.
func TestBindAgain(t *testing.T) {
	journal := newMemJournal()
	before := newTable(journal)
	before.Add(Socket{Cookie: 1, App: "0000000a", Domain: inet, Proto: ax.TCP, SendTimeo: NoTimeo})
	if _, ok := before.Bind(scopeA, 1, ap("0.0.0.0:80"), Reuse{}, false); !ok {
		t.Fatal("bind")
	}
	table := restarted(journal)
	if other, ok := table.Bind(scopeA, 1, ap("0.0.0.0:80"), Reuse{}, false); !ok {
		t.Fatalf("bind again: %+v is in the way", other)
	}
	table.Update(1, func(s *Socket) { s.Host, s.State = ap("10.0.0.1:40000"), Listening })
	if host, ok := table.Loopback(scopeA, ax.TCP, ap("127.0.0.1:80"), inet); !ok || host != ap("10.0.0.1:40000") {
		t.Errorf("over loopback: %v %v", host, ok)
	}
	table.Remove(1, start)
	if len(table.scopes) != 0 {
		t.Errorf("scopes are left: %v", table.scopes)
	}
}

// TestClosedMeanwhile: what was closed while there was no agent is forgotten, accepted connections too; what lives stays,
// and so does a socket of which the kernel can't tell.
func TestClosedMeanwhile(t *testing.T) {
	journal := newMemJournal()
	before := newTable(journal)
	for _, s := range []Socket{
		{Cookie: 1, State: Listening, Host: ap("10.0.0.1:40001")},
		{Cookie: 2, State: Listening, Host: ap("10.0.0.1:40002")},
		{Cookie: 3, State: Accepted, Local: ap("1.1.1.1:80"), Peer: ap("2.2.2.2:5000")},
		{Cookie: 4, State: Accepted, Local: ap("1.1.1.1:80"), Peer: ap("2.2.2.2:5001")},
		{Cookie: 5, State: Fresh},
		{Cookie: 6, State: Connecting, Peer: ap("1.1.1.1:80")},
	} {
		s.App, s.Domain, s.Proto, s.SendTimeo = "0000000a", inet, ax.TCP, NoTimeo
		before.Add(s)
	}
	table := restarted(journal, 1, 3)
	for cookie, want := range map[uint64]bool{1: true, 2: false, 3: true, 4: false, 5: true, 6: true} {
		if _, ok := table.Get(cookie); ok != want {
			t.Errorf("socket %d is there: %v, want %v", cookie, ok, want)
		}
	}
	if len(journal.records) != 4 {
		t.Errorf("%d records, want 4", len(journal.records))
	}
}
