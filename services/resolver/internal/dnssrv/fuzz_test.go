package dnssrv

import (
	"context"
	"encoding/binary"
	"log/slog"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// FuzzServe: whatever arrives, the server does not fail, answers no answers, answers a query at most once, within the
// size allowed, under its id, and what it does not understand with an error.
func FuzzServe(f *testing.F) {
	z := names(f, 100)
	seed := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	seed(queryFor("web.", dns.TypeA))
	seed(queryFor("many.appswitch.local.", dns.TypeA).SetEdns0(4096, true))
	seed(queryFor("_80._tcp.many.", dns.TypeSRV))
	seed(queryFor("1.0.18.198.in-addr.arpa.", dns.TypePTR))
	seed(queryFor("198-19-0-1.many.", dns.TypeANY))
	seed(queryFor(`a\.b\000.appswitch.local.`, dns.TypeTXT))
	seed(new(dns.Msg).SetUpdate("appswitch.local."))
	seed(new(dns.Msg).SetReply(queryFor("web.", dns.TypeA)))
	f.Add([]byte{}, false)
	s, err := New(Config{
		Quick: []Handler{present(z), Gate{}}, Last: handler(refuse), MayForward: everybody,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, stream bool) {
		transport, limit := udp, MaxUDPSize
		if stream {
			transport, limit = tcp, dns.MaxMsgSize
		}
		// The handlers, without the net that catches them: a panic is a failure here.
		if q, _ := parse(data, transport); q != nil {
			q.Recursion = true
			for _, h := range s.cfg.Quick {
				h.Handle(context.Background(), q)
			}
		}
		replies := make(chan []byte, 2)
		var g errgroup.Group
		s.serve(context.Background(), &g, packet{transport: transport, data: data, out: make([]byte, 512), done: func(b []byte) { replies <- b }})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if len(replies) != 1 {
			t.Fatalf("%d replies", len(replies))
		}
		reply := <-replies
		if len(data) < headerSize || data[2]&0x80 != 0 {
			if reply != nil {
				t.Fatalf("an answer is answered: %x", reply)
			}
			return
		}
		r := new(dns.Msg)
		if err := r.Unpack(reply); err != nil {
			t.Fatalf("reply %x: %v", reply, err)
		}
		if len(reply) > limit || !r.Response || r.Id != binary.BigEndian.Uint16(data) {
			t.Fatalf("%d bytes: %v", len(reply), r)
		}
		if new(dns.Msg).Unpack(data) != nil && r.Rcode != dns.RcodeFormatError && r.Rcode != dns.RcodeNotImplemented {
			t.Fatalf("nonsense is answered: %v", r)
		}
	})
}

// FuzzReceived: whatever another server says is an answer to the question, or none, and can be passed on.
func FuzzReceived(f *testing.F) {
	q := queryFor("example.com.", dns.TypeA)
	q.Id = 1
	r := new(dns.Msg).SetReply(q)
	r.Answer = []dns.RR{record("example.com. 60 IN A 192.0.2.1")}
	r.Ns = []dns.RR{record("example.com. 60 IN SOA ns. host. 1 2 3 4 5")}
	b, err := r.SetEdns0(1232, true).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(dns.Msg)
		if m.Unpack(data) != nil || !matches(q, m) {
			return
		}
		m = received(m, question{Question: q.Question[0]})
		lifetime(m)
		client, _ := parse(mustPack(t, q), udp)
		if client == nil {
			t.Fatal("the query is not one")
		}
		out := client.finish(forwarded(client, m, 0))
		s := &Server{cfg: Config{Log: slog.New(slog.DiscardHandler)}, metrics: fuzzMetrics}
		if b := s.pack(out, nil); b == nil {
			t.Fatalf("can't be passed on: %v", m)
		}
	})
}

var fuzzMetrics = func() *metrics {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	return m
}()

func mustPack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func record(s string) dns.RR {
	rr, err := dns.NewRR(s)
	if err != nil {
		panic(err)
	}
	return rr
}
