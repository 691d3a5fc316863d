package dnsrelay

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/dns/dnsmessage"
)

// comesBack is where a resolver can die and return: at this address the kernel gives its port to nobody else.
const comesBack = "127.0.0.2:0"

func addrOfFake(f *fake) func() netip.AddrPort { return func() netip.AddrPort { return f.addr } }

func TestAnswersAreTheResolvers(t *testing.T) {
	// Bytes pass as they are, in both directions, whatever they mean and however long they are.
	var asked []byte
	long := func(m *dnsmessage.Message) {
		for range 3500 {
			m.Answers = append(m.Answers, m.Answers[0])
		}
	}
	for name, change := range map[string]func(*dnsmessage.Message){
		"an address":   func(*dnsmessage.Message) {},
		"truncated":    func(m *dnsmessage.Message) { m.Truncated = true },
		"no such name": withRcode(dnsmessage.RCodeNameError),
		"long":         long,
	} {
		t.Run(name, func(t *testing.T) {
			var said []byte
			f := fakeAt(t, "127.0.0.1:0", func(q []byte, reply func([]byte)) {
				asked = bytes.Clone(q)
				said = answer(t, q, "198.18.0.1", change)
				reply(said)
			})
			a := newApp(t)
			r := newRelay(t, addrOfFake(f))
			a.serve(r)
			query := ask(t, 7, "web.", edns(65535, true))
			got := a.lookup(query)
			f.kill()
			if !bytes.Equal(asked, query) || !bytes.Equal(got, said) {
				t.Errorf("asked %x as %x, told %x as %x", query, asked, said, got)
			}
			// How often it was asked is the machine's: the relay asks again when an answer takes long.
			if result(r, answered) != 1 {
				t.Errorf("answered %v times, asked %d", result(r, answered), f.asked.Load())
			}
		})
	}
}

func TestResolverDiesAndComesBack(t *testing.T) {
	f := fakeAt(t, comesBack, always(t, "198.18.0.1"))
	a := newApp(t)
	r := newRelay(t, addrOfFake(f))
	a.serve(r)
	if got := addrOf(t, a.lookup(ask(t, 1, "web."))); got != "198.18.0.1" {
		t.Fatalf("got %s", got)
	}
	f.kill()
	start := time.Now()
	if got := addrOf(t, a.lookup(ask(t, 2, "web."))); got != "198.18.0.1" || result(r, stale) != 1 {
		t.Errorf("a known name without resolver: %s", got)
	}
	if took := time.Since(start); took < StaleAfter || took > StaleAfter+time.Second {
		t.Errorf("took %s", took)
	}
	a.send(ask(t, 3, "new."))
	if b := a.receive(500 * time.Millisecond); b != nil {
		t.Fatalf("answered by nobody: %x", b)
	}
	back := fakeAt(t, f.addr.String(), always(t, "198.18.0.2"))
	b := a.receive(3 * time.Second)
	if b == nil || addrOf(t, b) != "198.18.0.2" {
		t.Errorf("a new name: got %x", b)
	}
	if got := addrOf(t, a.lookup(ask(t, 4, "web."))); got != "198.18.0.2" {
		t.Errorf("the known name with resolver: got %s", got)
	}
	back.kill()
	if got := addrOf(t, a.lookup(ask(t, 5, "web."))); got != "198.18.0.2" {
		t.Errorf("the known name without resolver again: got %s", got)
	}
}

func TestNoSocketIsItsOwnResolver(t *testing.T) {
	f := fakeAt(t, comesBack, always(t, "198.18.0.1"))
	f.kill()
	if up, err := dialFrom(net.UDPAddrFromAddrPort(f.addr), f.addr); err == nil {
		up.close()
		t.Error("connected to itself")
	}
	fakeAt(t, f.addr.String(), always(t, "198.18.0.1")) // the port is free
}

func TestNobodyThere(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", always(t, "198.18.0.1"))
	f.kill()
	a := newApp(t)
	r := newRelay(t, addrOfFake(f))
	a.serve(r)
	start := time.Now()
	m := unpack(t, a.lookup(ask(t, 1, "web.")))
	if took := time.Since(start); m.RCode != dnsmessage.RCodeServerFailure || m.ID != 1 || took < Patience || took > 4900*time.Millisecond {
		t.Errorf("told %+v after %s", m, took)
	}
	if result(r, failed) != 1 || testutil.CollectAndCount(r.metrics.seconds) != 1 {
		t.Error("not counted")
	}
}

func TestOnlyTheAnswerIsPassedOn(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", func(q []byte, reply func([]byte)) {
		reply(nil)
		reply([]byte("garbage"))
		reply(bytes.Repeat([]byte{0xFF}, 60000))
		reply(q)
		reply(answer(t, ask(t, 1, "wep."), "203.0.113.1"))
		reply(answer(t, ask(t, 2, "web."), "203.0.113.2"))
		reply(answer(t, q, "198.18.0.1"))
	})
	a := newApp(t)
	a.serve(newRelay(t, addrOfFake(f)))
	if got := addrOf(t, a.lookup(ask(t, 1, "web."))); got != "198.18.0.1" {
		t.Errorf("got %s", got)
	}
	if b := a.receive(50 * time.Millisecond); b != nil {
		t.Errorf("told more: %x", b)
	}
}

func TestAppsSendGarbage(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", always(t, "198.18.0.1"))
	a := newApp(t)
	r := newRelay(t, addrOfFake(f))
	a.serve(r)
	a.send(nil)
	a.send([]byte("garbage"))
	a.send(bytes.Repeat([]byte{0xFF}, 60000))
	a.send(answer(t, ask(t, 1, "web."), "198.18.0.1"))
	if got := addrOf(t, a.lookup(ask(t, 1, "web."))); got != "198.18.0.1" {
		t.Errorf("got %s", got)
	}
	if n := testutil.ToFloat64(r.metrics.ignored); n != 4 || f.asked.Load() != 1 {
		t.Errorf("%v ignored, resolver asked %d times", n, f.asked.Load())
	}
}

// A query that arrives while there is no agent waits in the socket, which the agent neither closes nor harms by ending.
func TestQueriesWaitForTheAgent(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", always(t, "198.18.0.1"))
	a := newApp(t)
	for id := range uint16(3) {
		stop := a.serve(newRelay(t, addrOfFake(f)))
		if got := addrOf(t, a.lookup(ask(t, id, "web."))); got != "198.18.0.1" {
			t.Errorf("got %s", got)
		}
		stop()
		a.send(ask(t, id+100, "web."))
		if b := a.receive(50 * time.Millisecond); b != nil {
			t.Fatalf("answered by nobody: %x", b)
		}
		stop = a.serve(newRelay(t, addrOfFake(f)))
		if b := a.receive(2 * time.Second); b == nil || unpack(t, b).ID != id+100 {
			t.Errorf("the query that waited: %x", b)
		}
		stop()
	}
}

// Ending does not wait for a silent resolver, and leaves nothing behind (as TestMain checks).
func TestEndsAmidQueries(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", func([]byte, func([]byte)) {})
	a := newApp(t)
	stop := a.serve(newRelay(t, addrOfFake(f)))
	for id := range uint16(50) {
		a.send(ask(t, id, fmt.Sprintf("n%d.", id)))
	}
	for start := time.Now(); f.asked.Load() < 50; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("only %d queries came through", f.asked.Load())
		}
	}
	start := time.Now()
	stop()
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s", took)
	}
}

func TestServeTellsOfASocketThatFails(t *testing.T) {
	a := newApp(t)
	done := make(chan error, 1)
	go func() { done <- newRelay(t, atSomewhere).Serve(t.Context(), a.socket) }()
	time.Sleep(20 * time.Millisecond)
	_ = a.socket.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(5 * time.Second):
		t.Error("goes on")
	}
}

// One application that floods is stopped at its own bound, all together at theirs; what is dropped is counted and comes
// through when asked again.
func TestQueriesUnderWayAreBounded(t *testing.T) {
	const perApp, all = 10, 25
	var mu sync.Mutex
	mute := true
	f := fakeAt(t, "127.0.0.1:0", func(q []byte, reply func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		if !mute {
			reply(answer(t, q, "198.18.0.1"))
		}
	})
	r := newRelay(t, addrOfFake(f))
	r.waiting, r.perApp = make(chan struct{}, all), perApp
	var apps []*app
	for i := range 4 {
		a := newApp(t)
		a.serve(r)
		apps = append(apps, a)
		for id := range uint16(perApp + 3) {
			a.send(ask(t, id, "web."))
		}
		want := []float64{3, 6, 14, 27}[i]
		for start := time.Now(); result(r, dropped) < want; time.Sleep(time.Millisecond) {
			if time.Since(start) > 5*time.Second {
				t.Fatalf("%v dropped, want %v", result(r, dropped), want)
			}
		}
	}
	if result(r, dropped) != 27 || len(r.waiting) != all {
		t.Errorf("%v dropped, %d under way", result(r, dropped), len(r.waiting))
	}
	mu.Lock()
	mute = false
	mu.Unlock()
	for _, i := range []int{0, 1} {
		for range perApp {
			if b := apps[i].receive(3 * time.Second); b == nil {
				t.Fatal("no answer")
			}
		}
	}
	if got := addrOf(t, apps[3].lookup(ask(t, 99, "web."))); got != "198.18.0.1" {
		t.Errorf("got %s", got)
	}
}

// Many applications ask while the resolver keeps dying. Everyone gets the answer to what was asked.
func TestManyAppsAndADyingResolver(t *testing.T) {
	const apps, lookups = 8, 15
	echo := func(q []byte, reply func([]byte)) { reply(answer(t, q, "198.18.0.1")) }
	f := fakeAt(t, comesBack, echo)
	addr := f.addr
	r := newRelay(t, func() netip.AddrPort { return addr })
	var clients sync.WaitGroup
	for i := range apps {
		a := newApp(t)
		a.serve(r)
		clients.Go(func() {
			for n := range lookups {
				time.Sleep(10 * time.Millisecond)
				name := fmt.Sprintf("n%d-%d.", i, n)
				m := unpack(t, a.lookup(ask(t, uint16(n), name)))
				if m.ID != uint16(n) || m.Questions[0].Name.String() != name || m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != 1 {
					t.Errorf("%s: told %+v", name, m)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { clients.Wait(); close(ended) }()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(70 * time.Millisecond):
			f.kill()
			time.Sleep(50 * time.Millisecond)
			f = fakeAt(t, addr.String(), echo)
		}
	}
	if n := result(r, answered); n != apps*lookups {
		t.Errorf("%v answered", n)
	}
}

func TestNewChecksWhatItGets(t *testing.T) {
	log, resolver := slog.New(slog.DiscardHandler), atSomewhere
	for name, tt := range map[string]struct {
		cfg  Config
		deps Deps
	}{
		"no resolver": {Config{}, Deps{Log: log, Metrics: prometheus.NewRegistry()}},
		"no log":      {Config{Resolver: resolver}, Deps{Metrics: prometheus.NewRegistry()}},
		"no metrics":  {Config{Resolver: resolver}, Deps{Log: log}},
	} {
		if _, err := New(tt.cfg, tt.deps); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	reg := prometheus.NewRegistry()
	if _, err := New(Config{Resolver: resolver}, Deps{Log: log, Metrics: reg}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Resolver: resolver}, Deps{Log: log, Metrics: reg}); err == nil {
		t.Error("the same metrics twice: accepted")
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var results []string
	for _, f := range families {
		if f.GetName() == "appswitch_nodeagent_dns_queries_total" {
			for _, m := range f.GetMetric() {
				results = append(results, m.GetLabel()[0].GetValue())
			}
		}
	}
	if !slices.Equal(results, []string{"answered", "dropped", "failed", "stale"}) {
		t.Errorf("results %v", results)
	}
}

func BenchmarkLookup(b *testing.B) {
	f := fakeAt(b, "127.0.0.1:0", always(b, "198.18.0.1"))
	a := newApp(b)
	a.serve(newRelay(b, addrOfFake(f)))
	query := ask(b, 1, "web.")
	b.Run("relayed", func(b *testing.B) {
		for b.Loop() {
			a.lookup(query)
		}
	})
	b.Run("direct", func(b *testing.B) {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(f.addr))
		if err != nil {
			b.Fatal(err)
		}
		direct := &app{t: b, client: conn}
		defer conn.Close()
		for b.Loop() {
			direct.lookup(query)
		}
	})
}
