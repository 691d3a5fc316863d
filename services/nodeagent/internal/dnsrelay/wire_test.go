package dnsrelay

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"
)

func TestParse(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 63)+".", 4)
	valid := ask(t, 1, "web.", edns(1400, true))
	for _, tt := range []struct {
		name           string
		packet         []byte
		isQuery, plain bool
		size           int
	}{
		{"plain", ask(t, 1, "web."), true, true, 512},
		{"the root", ask(t, 1, "."), true, true, 512},
		{"EDNS", valid, true, true, 1400},
		{"EDNS with a size that is none", ask(t, 1, "web.", edns(0, false)), true, true, 512},
		{"the longest name", ask(t, 1, long[2:]), true, true, 512},
		{"cut in the OPT record", valid[:len(valid)-1], true, false, 512},
		{"with something behind it", append(ask(t, 1, "web."), 0), true, false, 512},
		{"another opcode", ask(t, 1, "web.", func(m *dnsmessage.Message) { m.OpCode = 4 }), true, false, 512},
		{"an answer", answer(t, ask(t, 1, "web."), "198.18.0.1"), false, false, 0},
		{"no question", ask(t, 1, "web.", func(m *dnsmessage.Message) { m.Questions = nil }), false, false, 0},
		{"two questions", ask(t, 1, "web.", func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }), false, false, 0},
		{"nothing", nil, false, false, 0},
		{"half a header", valid[:11], false, false, 0},
		{"a header only", valid[:12], false, false, 0},
		{"cut in the name", valid[:15], false, false, 0},
		{"cut in the class", valid[:20], false, false, 0},
		{"a pointer for a name", append(bytes.Clone(valid[:12]), 0xC0, 12, 0, 1, 0, 1), false, false, 0},
		{"a label of 64", append(append(bytes.Clone(valid[:12]), 64), make([]byte, 80)...), false, false, 0},
		{"a name of 256", append(append(bytes.Clone(valid[:12]), bytes.Repeat([]byte{1, 'a'}, 128)...), make([]byte, 200)...), false, false, 0},
		{"longer than any", append(ask(t, 1, "web."), make([]byte, maxQuerySize)...), false, false, 0},
	} {
		q := parse(tt.packet)
		if (q != nil) != tt.isQuery {
			t.Errorf("%s: is a query: %v", tt.name, q != nil)
			continue
		}
		if q != nil && (q.ordinary != tt.plain || q.size != tt.size || !bytes.Equal(q.data, tt.packet)) {
			t.Errorf("%s: got %+v", tt.name, q)
		}
	}
}

func TestAnsweredBy(t *testing.T) {
	query := ask(t, 0x1234, "web.")
	right := answer(t, query, "198.18.0.1")
	for name, tt := range map[string]struct {
		b    []byte
		want bool
	}{
		"the answer":                     {right, true},
		"in another case":                {answer(t, ask(t, 0x1234, "WeB."), "198.18.0.1"), true},
		"a refusal without question":     {answer(t, query, "198.18.0.1", withRcode(dnsmessage.RCodeFormatError), func(m *dnsmessage.Message) { m.Questions = nil }), true},
		"an answer without question":     {answer(t, query, "198.18.0.1", func(m *dnsmessage.Message) { m.Questions = nil }), false},
		"no such name, without question": {answer(t, query, "198.18.0.1", withRcode(dnsmessage.RCodeNameError), func(m *dnsmessage.Message) { m.Questions = nil }), false},
		"for another id":                 {answer(t, ask(t, 0x1235, "web."), "198.18.0.1"), false},
		"for another name":               {answer(t, ask(t, 0x1234, "wep."), "198.18.0.1"), false},
		"for a longer name":              {answer(t, ask(t, 0x1234, "web.x."), "198.18.0.1"), false},
		"for another type":               {answer(t, query, "198.18.0.1", func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA }), false},
		"for a type in lower case":       {answer(t, query, "198.18.0.1", func(m *dnsmessage.Message) { m.Questions[0].Type = 0x4101 }), false},
		"for another class":              {answer(t, query, "198.18.0.1", func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }), false},
		"with two questions":             {answer(t, query, "198.18.0.1", func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }), false},
		"of another opcode":              {answer(t, query, "198.18.0.1", func(m *dnsmessage.Message) { m.OpCode = 4 }), false},
		"the query itself":               {query, false},
		"nothing":                        {nil, false},
		"half a header":                  {right[:7], false},
		"half a question":                {right[:16], false},
		"whose records make no sense":    {right[:len(right)-2], true}, // the client judges
	} {
		if got := parse(query).answeredBy(tt.b); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A name with a dot inside a label is one too.
func TestDotInALabel(t *testing.T) {
	query := append(ask(t, 1, ".")[:12], "\x03a.b\x00\x00\x01\x00\x01"...)
	q := parse(query)
	if q == nil || !q.ordinary {
		t.Fatalf("got %+v", q)
	}
}

// neutral returns a message without what may differ between an answer and the same answer served stale, and its longest TTL.
func neutral(b []byte, question int) (out []byte, ttl uint32) {
	out = bytes.Clone(b)
	out[0], out[1] = 0, 0
	binary.BigEndian.PutUint16(out[2:], flags(out)&^(flagAA|flagAD))
	copy(out[headerSize:], lower(out[headerSize:headerSize+question]))
	walk(out, headerSize+question, func(rtype uint16, fixed []byte) {
		if rtype != typeOPT {
			ttl = max(ttl, binary.BigEndian.Uint32(fixed[4:]))
			clear(fixed[4:8])
		}
	})
	return out, ttl
}

// FuzzPackets gives the relay any bytes, from an application and from the resolver. Whatever it then keeps it hands out as
// the same message, apart from id, case and TTLs.
func FuzzPackets(f *testing.F) {
	query := ask(f, 1, "web.", edns(1232, true))
	f.Add(query, answer(f, query, "198.18.0.1", edns(1232, true)))
	f.Add(query, answer(f, query, "198.18.0.1", empty))
	f.Add(query, answer(f, query, "198.18.0.1", withRcode(dnsmessage.RCodeServerFailure)))
	f.Add(ask(f, 7, "."), query[:20])
	f.Add([]byte{}, []byte("garbage"))
	f.Fuzz(func(t *testing.T, fromApp, fromResolver []byte) {
		q := parse(fromApp)
		if q == nil {
			return
		}
		if s := q.servfail(); !q.answeredBy(s) || !walk(s, headerSize+len(q.question), func(uint16, []byte) {}) {
			t.Fatalf("%x is no answer to %x", s, fromApp)
		}
		if len(fromResolver) >= headerSize { // else nothing would ever match
			fromResolver = bytes.Clone(fromResolver)
			copy(fromResolver, fromApp[:2])
			fromResolver[2] |= flagQR >> 8
		}
		if !q.answeredBy(fromResolver) {
			return
		}
		c := newCache(4, 1<<20, prometheus.NewCounter(prometheus.CounterOpts{Name: "evicted"}))
		c.learn(q, fromResolver)
		again := bytes.Clone(fromApp)
		again[0]++
		kept := c.stale(parse(again))
		if kept == nil {
			return
		}
		was, _ := neutral(fromResolver, len(q.question))
		is, ttl := neutral(kept, len(q.question))
		if !parse(again).answeredBy(kept) || !bytes.Equal(was, is) || ttl > StaleTTL || rcode(kept) != rcodeSuccess {
			t.Fatalf("%x became %x", fromResolver, kept)
		}
	})
}

// FuzzSockets sends any bytes through real sockets, from both sides; afterwards a lookup still succeeds.
func FuzzSockets(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{})
	f.Add(ask(f, 1, "x."), []byte("garbage"))
	f.Add(ask(f, 1, "x."), answer(f, ask(f, 1, "x."), "198.18.0.1"))
	f.Fuzz(func(t *testing.T, fromApp, fromResolver []byte) {
		if len(fromApp) > 60000 || len(fromResolver) > 60000 {
			return
		}
		last := ask(t, 0xBEEF, "last.")
		resolver := fakeAt(t, "127.0.0.1:0", func(q []byte, reply func([]byte)) {
			reply(fromResolver)
			if bytes.Equal(q, last) {
				reply(answer(t, q, "198.18.0.1"))
			}
		})
		a := newApp(t)
		a.serve(newRelay(t, addrOfFake(resolver)))
		a.send(fromApp)
		a.send(last)
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
			if b := a.receive(5 * time.Second); len(b) > 2 && b[0] == 0xBE && b[1] == 0xEF {
				return
			}
		}
		t.Fatal("no answer afterwards")
	})
}
