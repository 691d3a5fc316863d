package socktab

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	inet  = 2
	inet6 = 10
)

var (
	scopeA = ScopeID{Dev: 4, Ino: 100}
	scopeB = ScopeID{Dev: 4, Ino: 200}
	start  = time.Unix(1000, 0)
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// memJournal keeps records in memory as journal.File does on tmpfs.
type memJournal struct {
	records map[int][]byte
	next    int
	full    bool
}

func newMemJournal() *memJournal { return &memJournal{records: map[int][]byte{}} }

func (j *memJournal) Alloc() (int, error) {
	if j.full {
		return 0, errors.New("full")
	}
	j.next++
	return j.next, nil
}
func (j *memJournal) Put(slot int, data []byte) { j.records[slot] = append([]byte(nil), data...) }
func (j *memJournal) Free(slot int)             { delete(j.records, slot) }

func newTable(j Journal) *Table { return New(j, slog.New(slog.DiscardHandler)) }

func TestBindConflicts(t *testing.T) {
	type socket struct {
		app    ax.AppID
		domain int
		local  string
		reuse  Reuse
		v6only bool
		listen bool
	}
	both := Reuse{Addr: true, Port: true}
	tests := []struct {
		name          string
		first, second socket
		ok            bool
	}{
		{"same wildcard", socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, false},
		{"another port", socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, socket{"a", inet, "0.0.0.0:81", Reuse{}, false, false}, true},
		{"another application", socket{"a", inet, "0.0.0.0:80", Reuse{}, false, true}, socket{"b", inet, "0.0.0.0:80", Reuse{}, false, false}, true},
		{"wildcard over address", socket{"a", inet, "1.1.1.1:80", Reuse{}, false, false}, socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, false},
		{"two addresses", socket{"a", inet, "1.1.1.1:80", Reuse{}, false, false}, socket{"a", inet, "127.0.0.1:80", Reuse{}, false, false}, true},
		{"reuse address, none listens", socket{"a", inet, "0.0.0.0:80", Reuse{Addr: true}, false, false}, socket{"a", inet, "0.0.0.0:80", Reuse{Addr: true}, false, false}, true},
		{"reuse address, one listens", socket{"a", inet, "0.0.0.0:80", Reuse{Addr: true}, false, true}, socket{"a", inet, "0.0.0.0:80", Reuse{Addr: true}, false, false}, false},
		{"reuse port", socket{"a", inet, "0.0.0.0:80", both, false, true}, socket{"a", inet, "0.0.0.0:80", both, false, false}, true},
		{"reuse port on one side only", socket{"a", inet, "0.0.0.0:80", both, false, true}, socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, false},
		{"dual stack takes IPv4 too", socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, socket{"a", inet6, "[::]:80", Reuse{}, false, false}, false},
		{"IPv6 only does not", socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, socket{"a", inet6, "[::]:80", Reuse{}, true, false}, true},
		{"nginx's pair the other way round", socket{"a", inet6, "[::]:80", Reuse{}, true, true}, socket{"a", inet, "0.0.0.0:80", Reuse{}, false, false}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := newTable(nil)
			for i, s := range []socket{tt.first, tt.second} {
				cookie := uint64(i + 1)
				table.Add(Socket{Cookie: cookie, App: s.app, Domain: s.domain, Proto: ax.TCP})
				other, ok := table.Bind(scopeA, cookie, ap(s.local), s.reuse, s.v6only)
				if want := i == 0 || tt.ok; ok != want {
					t.Fatalf("bind %d = %v, want %v", i+1, ok, want)
				}
				if !ok && other.Cookie != 1 {
					t.Fatalf("in the way is socket %d, want 1", other.Cookie)
				}
				if s.listen {
					table.Update(cookie, func(s *Socket) { s.State = Listening })
				}
			}
		})
	}
}

func TestReuseAddrMayNotListenTwice(t *testing.T) {
	table := newTable(nil)
	for c := uint64(1); c <= 2; c++ {
		table.Add(Socket{Cookie: c, App: "a", Domain: inet, Proto: ax.TCP})
		if _, ok := table.Bind(scopeA, c, ap("0.0.0.0:80"), Reuse{Addr: true}, false); !ok {
			t.Fatal("bind is refused")
		}
	}
	if _, ok := table.CanListen(1); !ok {
		t.Fatal("the first may not listen")
	}
	table.Update(1, func(s *Socket) { s.State = Listening })
	if other, ok := table.CanListen(2); ok || other.Cookie != 1 {
		t.Fatalf("the second may listen too; in the way is %d", other.Cookie)
	}
	table.Remove(1, start)
	if _, ok := table.CanListen(2); !ok {
		t.Fatal("the second may not listen after the first was closed")
	}
}

func TestReusePortGroupSharesHostAddress(t *testing.T) {
	table := newTable(nil)
	for c := uint64(1); c <= 2; c++ {
		table.Add(Socket{Cookie: c, App: "a", Domain: inet, Proto: ax.TCP})
		if _, ok := table.Bind(scopeA, c, ap("0.0.0.0:80"), Reuse{Port: true}, false); !ok {
			t.Fatal("bind is refused")
		}
	}
	if _, ok := table.ReusePortHost(1); ok {
		t.Fatal("a host address before anybody has one")
	}
	table.Update(1, func(s *Socket) { s.Host = ap("10.0.0.1:40000") })
	if got, ok := table.ReusePortHost(2); !ok || got != ap("10.0.0.1:40000") {
		t.Fatalf("host address = %v, %v", got, ok)
	}
}

func TestLoopbackIsPrivateToItsScope(t *testing.T) {
	table := newTable(nil)
	listen := func(cookie uint64, domain int, scope ScopeID, local, host string, v6only bool) {
		table.Add(Socket{Cookie: cookie, App: "a", Domain: domain, Proto: ax.TCP})
		if _, ok := table.Bind(scope, cookie, ap(local), Reuse{}, v6only); !ok {
			t.Fatalf("bind %s is refused", local)
		}
		table.Update(cookie, func(s *Socket) { s.Host, s.State = ap(host), Listening })
	}
	listen(1, inet, scopeA, "0.0.0.0:80", "10.0.0.1:40001", false)
	listen(2, inet, scopeA, "127.0.0.1:81", "127.0.0.1:40002", false)
	listen(3, inet6, scopeA, "[::]:82", "10.0.0.1:40003", false)
	listen(4, inet6, scopeA, "[::1]:83", "[::1]:40004", false)
	listen(5, inet, scopeA, "127.0.0.2:84", "127.0.0.1:40005", false)
	tests := []struct {
		scope  ScopeID
		dest   string
		domain int
		want   string
	}{
		{scopeA, "127.0.0.1:80", inet, "10.0.0.1:40001"},
		{scopeA, "127.0.0.9:80", inet, "10.0.0.1:40001"},
		{scopeB, "127.0.0.1:80", inet, ""},
		{scopeA, "127.0.0.1:81", inet, "127.0.0.1:40002"},
		{scopeA, "127.0.0.2:81", inet, ""},
		{scopeA, "127.0.0.1:82", inet, "10.0.0.1:40003"},
		{scopeA, "[::1]:82", inet6, "10.0.0.1:40003"},
		{scopeA, "[::1]:80", inet6, ""}, // an IPv4 socket does not take IPv6
		{scopeA, "[::1]:83", inet6, "[::1]:40004"},
		{scopeA, "127.0.0.1:83", inet, ""},
		{scopeA, "127.0.0.2:84", inet, "127.0.0.1:40005"},
		{scopeA, "127.0.0.1:84", inet, ""},
	}
	for _, tt := range tests {
		got, ok := table.Loopback(tt.scope, ax.TCP, ap(tt.dest), tt.domain)
		if ok != (tt.want != "") || (ok && got != ap(tt.want)) {
			t.Errorf("Loopback(%v, %s) = %v, %v, want %q", tt.scope, tt.dest, got, ok, tt.want)
		}
	}
	table.Remove(1, start)
	if _, ok := table.Loopback(scopeA, ax.TCP, ap("127.0.0.1:80"), inet); ok {
		t.Error("a closed socket is still found")
	}
}

// TestOwnServiceIsFoundAtItsAddress: for the application that serves it, not for others that share its loopback.
func TestOwnServiceIsFoundAtItsAddress(t *testing.T) {
	table := newTable(nil)
	table.Add(Socket{Cookie: 1, App: "a", Domain: inet, Proto: ax.TCP})
	if _, ok := table.Bind(scopeA, 1, ap("0.0.0.0:80"), Reuse{}, false); !ok {
		t.Fatal("bind is refused")
	}
	table.Update(1, func(s *Socket) { s.Host = ap("10.0.0.1:40001") })
	own := func(scope ScopeID, app ax.AppID) bool {
		_, ok := table.Own(scope, app, ax.TCP, ap("1.1.1.1:80"), inet)
		return ok
	}
	if own(scopeA, "a") {
		t.Error("found before it listens")
	}
	table.Update(1, func(s *Socket) { s.State = Listening })
	if !own(scopeA, "a") || own(scopeA, "b") || own(scopeB, "a") {
		t.Errorf("found by itself %v, by another %v, on another loopback %v", own(scopeA, "a"), own(scopeA, "b"), own(scopeB, "a"))
	}
}

func TestAdmission(t *testing.T) {
	client, server := ap("10.0.0.1:50000"), ap("10.0.0.1:40000")
	table := newTable(nil)
	admit := func() (Peer, Admission) {
		peer, a, _ := table.Admit(client, server, 0, start, func() {})
		return peer, a
	}

	if _, got := admit(); got != Unknown {
		t.Fatalf("stranger: %v, want Unknown", got)
	}
	woken := 0
	intent := table.Intend(server)
	_, got, ticket := table.Admit(client, server, 0, start, func() { woken++ })
	if got != Pending {
		t.Fatalf("during a connect: %v, want Pending", got)
	}
	later := table.Intend(server)
	if _, got, _ := table.Admit(ap("10.0.0.1:1"), server, ticket, start, func() {}); got != Pending {
		t.Fatalf("while the earlier connect is under way: %v, want Pending", got)
	}
	table.Add(Socket{Cookie: 1, App: "a", Domain: inet, Proto: ax.TCP})
	table.Update(1, func(s *Socket) {
		s.Host, s.HostPeer, s.Local, s.Peer = client, server, ap("2.2.2.2:50000"), ap("1.1.1.1:80")
	})
	table.Settle(server, intent)
	if _, got, _ := table.Admit(ap("10.0.0.1:1"), server, ticket, start, func() {}); got != Unknown {
		t.Fatalf("stranger, while only a later connect is under way: %v, want Unknown", got)
	}
	table.Settle(server, later)
	if woken != 1 {
		t.Fatalf("woken %d times, want once", woken)
	}
	want := Peer{Local: ap("1.1.1.1:80"), Remote: ap("2.2.2.2:50000")}
	if got, a := admit(); a != Known || got != want {
		t.Fatalf("announced: %v %v, want %v", got, a, want)
	}
}

func TestClosedClientIsRememberedUntilAccepted(t *testing.T) {
	client, server := ap("10.0.0.1:50000"), ap("10.0.0.1:40000")
	journal := newMemJournal()
	table := newTable(journal)
	table.Add(Socket{Cookie: 1, App: "a", Domain: inet, Proto: ax.TCP, Host: client, HostPeer: server})
	table.Remove(1, start)
	if _, a, _ := table.Admit(client, server, 0, start, func() {}); a != Known {
		t.Fatalf("admission = %v, want Known", a)
	}
	table.ExpireGhosts(start)
	if len(journal.records) != 0 {
		t.Errorf("%d records are left after the ghost was admitted", len(journal.records))
	}

	table.Add(Socket{Cookie: 2, App: "a", Domain: inet, Proto: ax.TCP, Host: client, HostPeer: server})
	table.Remove(2, start)
	table.ExpireGhosts(start.Add(GhostTime))
	if _, a, _ := table.Admit(client, server, 0, start, func() {}); a != Unknown {
		t.Errorf("admission after %s = %v, want Unknown", GhostTime, a)
	}
}

func TestRestore(t *testing.T) {
	journal := newMemJournal()
	before := newTable(journal)
	full := Socket{
		Cookie: 1, App: "f83e8600", Domain: inet6, Proto: ax.TCP, State: Listening, Local: ap("[::]:80"), Peer: ap("9.9.9.9:1"),
		Host: ap("10.0.0.1:40000"), HostPeer: ap("[2001:db8::1]:7"), Service: ap("1.1.1.1:80"), V6Only: true, Foreign: true,
		Pooled: true, Published: true, Backlog: -1, SendTimeo: NoTimeo,
	}
	before.Add(full)
	before.Bind(scopeA, 1, ap("[::]:80"), Reuse{Addr: true, Port: true}, true)
	before.Update(1, func(s *Socket) { s.State = Listening })
	before.Add(Socket{Cookie: 2, App: "f83e8600", Domain: inet, Proto: ax.TCP, State: Connected, Host: ap("10.0.0.1:50000"), HostPeer: ap("10.0.0.1:40001")})
	before.Add(Socket{Cookie: 3, App: "f83e8600", Domain: inet, Proto: ax.UDP, State: Bound, Host: ap("10.0.0.1:50001")})
	before.Add(Socket{Cookie: 4, App: "f83e8600", Domain: inet, Proto: ax.TCP})
	want, _ := before.Get(1)

	after := newTable(journal)
	for slot, data := range journal.records {
		after.Restore(slot, data, func(cookie uint64) bool { return cookie == 1 }, start)
	}
	got, ok := after.Get(1)
	got.scope, want.scope = nil, nil
	if !ok || got != want {
		t.Errorf("restored\n %+v, want\n %+v", got, want)
	}
	if _, ok := after.Get(4); !ok {
		t.Error("a fresh socket, which the kernel doesn't list, is lost")
	}
	if after.Len() != 2 {
		t.Errorf("%d sockets, want 2: the closed ones are dropped", after.Len())
	}
	if _, a, _ := after.Admit(ap("10.0.0.1:50000"), ap("10.0.0.1:40001"), 0, start, func() {}); a != Known {
		t.Errorf("a connection closed meanwhile: %v, want Known", a)
	}
	if _, a, _ := after.Admit(ap("10.0.0.1:6"), ap("10.0.0.1:7"), 0, start, func() {}); a != Pending {
		t.Errorf("stranger right after a restart: %v, want Pending", a)
	}
	after.Add(Socket{Cookie: 9, App: "f83e8600", Domain: inet6, Proto: ax.TCP})
	if _, ok := after.Bind(scopeA, 9, ap("[::]:80"), Reuse{}, true); ok {
		t.Error("the restored binding does not conflict")
	}
}

func TestFullJournalCostsNothingButTheRestart(t *testing.T) {
	journal := newMemJournal()
	journal.full = true
	table := newTable(journal)
	table.Add(Socket{Cookie: 1, App: "a", Domain: inet, Proto: ax.TCP})
	if _, ok := table.Get(1); !ok {
		t.Fatal("socket is missing")
	}
	table.Remove(1, start)
	if table.Len() != 0 {
		t.Fatal("socket is left")
	}
}

func FuzzRestore(f *testing.F) {
	f.Add((&Socket{Cookie: 1, App: "f83e8600", Domain: inet, Proto: ax.TCP, Host: ap("1.2.3.4:5"), Bound: ap("0.0.0.0:80")}).appendTo(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		table := newTable(newMemJournal())
		table.Restore(1, data, func(uint64) bool { return true }, start)
		for _, s := range table.List("") {
			if s.Domain != inet && s.Domain != inet6 {
				t.Fatalf("domain %d came through", s.Domain)
			}
			table.Remove(s.Cookie, start)
		}
		if table.Len() != 0 {
			t.Fatal("sockets are left")
		}
	})
}
