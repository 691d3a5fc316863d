package dnssrv

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// slow answers a query as the handlers do.
func slow(t testing.TB, n *Names, b []byte, recursion bool) *dns.Msg {
	t.Helper()
	q, reply := parse(b, udp)
	if q == nil {
		return reply
	}
	q.From, q.Recursion = loopback, recursion
	m := n.Handle(context.Background(), q)
	if m == nil {
		return nil
	}
	return q.finish(m)
}

// agree fails the test if the quick way says something else than the handlers.
func agree(t *testing.T, n *Names, b []byte, recursion bool) (answered bool) {
	t.Helper()
	out := make([]byte, 2*MaxUDPSize)
	size := n.quick(b, out, 1, recursion)
	if size == 0 {
		return false
	}
	got := new(dns.Msg)
	if err := got.Unpack(out[:size]); err != nil {
		t.Fatalf("quick reply %x to %x: %v", out[:size], b, err)
	}
	want := slow(t, n, b, recursion)
	if want == nil {
		t.Fatalf("%x: only the quick way answers: %v", b, got)
	}
	// Over the wire, so that both have the same form; the order of addresses is the turn's.
	got, want = sorted(t, got), sorted(t, want)
	if got.String() != want.String() {
		t.Fatalf("%x\nquick:\n%v\nhandlers:\n%v", b, got, want)
	}
	return true
}

func sorted(t *testing.T, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := new(dns.Msg)
	if err := c.Unpack(mustPack(t, m)); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(c.Answer, func(a, b dns.RR) int { return strings.Compare(a.String(), b.String()) })
	return c
}

func TestQuick(t *testing.T) {
	n := present(names(t, 20))
	edns := func(size uint16, do bool) func(*dns.Msg) {
		return func(m *dns.Msg) { m.SetEdns0(size, do) }
	}
	for _, tt := range []struct {
		name   string
		qtype  uint16
		change func(*dns.Msg)
		quick  bool
	}{
		{"web.", dns.TypeA, nil, true},
		{"WEB.AppSwitch.Local.", dns.TypeA, nil, true},
		{"web.appswitch.local.", dns.TypeA, edns(1232, true), true},
		{"web.appswitch.local.", dns.TypeA, edns(100, false), true},
		{"many.appswitch.local.", dns.TypeA, nil, true},
		{"web.", dns.TypeA, func(m *dns.Msg) { m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = false, true, true }, true},
		{"web.", dns.TypeAAAA, nil, false},
		{"nosuch.", dns.TypeA, nil, false},
		{"appswitch.local.", dns.TypeA, nil, false},
		{"xappswitch.local.", dns.TypeA, nil, false},
		{"web.appswitch.local.example.com.", dns.TypeA, nil, false},
		{"1.0.18.198.in-addr.arpa.", dns.TypeA, nil, false},
		{"localhost.", dns.TypeA, nil, false},
		{".", dns.TypeA, nil, false},
		{"web.", dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, false},
		{"web.", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, false},
		{"web.", dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, false},
		{"web.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, false},
		{"web.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556"}}
		}, false},
	} {
		m := queryFor(tt.name, tt.qtype)
		if tt.change != nil {
			tt.change(m)
		}
		for _, recursion := range []bool{true, false} {
			if got := agree(t, n, mustPack(t, m), recursion); got != tt.quick {
				t.Errorf("%v\nanswered the quick way: %v, want %v", m, got, tt.quick)
			}
		}
	}
	whole := mustPack(t, queryFor("web.", dns.TypeA))
	for i := range whole {
		if n.quick(whole[:i], make([]byte, 512), 0, true) != 0 {
			t.Errorf("the first %d bytes are answered", i)
		}
	}
	if n.quick(whole, nil, 0, true) != 0 {
		t.Error("a reply without room")
	}
	// A hundred addresses take EDNS; with less room the handlers say that it is cut.
	many := present(names(t, 70))
	if agree(t, many, mustPack(t, queryFor("many.", dns.TypeA)), true) {
		t.Error("1 kB of addresses is answered without EDNS")
	}
	if !agree(t, many, mustPack(t, queryFor("many.", dns.TypeA).SetEdns0(1232, false)), true) {
		t.Error("70 addresses fit with EDNS")
	}
}

// FuzzQuick: whatever arrives, the quick way says what the handlers say, or nothing.
func FuzzQuick(f *testing.F) {
	n := present(names(f, 3))
	for _, m := range []*dns.Msg{queryFor("web.appswitch.local.", dns.TypeA), queryFor("many.", dns.TypeA).SetEdns0(1232, true)} {
		f.Add(mustPack(f, m), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, recursion bool) { agree(t, n, data, recursion) })
}

// TestQuickTurns: every address comes first now and then.
func TestQuickTurns(t *testing.T) {
	n := present(names(t, 4))
	first := map[netip.Addr]bool{}
	out := make([]byte, 512)
	b := mustPack(t, queryFor("many.", dns.TypeA))
	for turn := range uint32(8) {
		size := n.quick(b, out, turn, true)
		a, _ := netip.AddrFromSlice(out[size-4*recordSize+12 : size-3*recordSize])
		first[a] = true
	}
	if len(first) != 4 {
		t.Errorf("only %v come first", first)
	}
}
