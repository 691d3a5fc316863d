package dnssrv

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go/mocktracer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// upstream is another DNS server on loopback, over both transports.
type upstream struct {
	addr  netip.AddrPort
	asked atomic.Int32
}

// newUpstream serves with a function that gets the transport and the query; it writes what it likes.
func newUpstream(t *testing.T, answer func(network string, w dns.ResponseWriter, q *dns.Msg)) *upstream {
	t.Helper()
	l, err := Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{addr: l.Addr()}
	for _, server := range []*dns.Server{{PacketConn: l.packets}, {Listener: l.stream}} {
		network := tcp
		if server.PacketConn != nil {
			network = udp
		}
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			u.asked.Add(1)
			answer(network, w, q)
		})
		started, done := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return u
}

func send(w dns.ResponseWriter, m *dns.Msg) { _ = w.WriteMsg(m) } // the client may have gone

// answering serves one address for every name, of which there are n records.
func answering(t *testing.T, address string, n int) *upstream {
	return newUpstream(t, func(network string, w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for range n {
			m.Answer = append(m.Answer, record(q.Question[0].Name+" 60 IN A "+address))
		}
		if network == udp {
			m.Truncate(dns.MinMsgSize)
		}
		m.SetEdns0(4096, false)
		send(w, m)
	})
}

// saying serves an error for every name.
func saying(t *testing.T, rcode int) *upstream {
	return newUpstream(t, func(_ string, w dns.ResponseWriter, q *dns.Msg) {
		send(w, new(dns.Msg).SetRcode(q, rcode).SetEdns0(1232, false))
	})
}

// silent returns the address of a server that never answers.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	return newUpstream(t, func(string, dns.ResponseWriter, *dns.Msg) {}).addr
}

// closed returns an address at which nothing is, and nobody else is to be.
func closed(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := Listen(netip.AddrPortFrom(netip.MustParseAddr("127.77.0.1"), 0))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr()
}

type resolver struct {
	addr    netip.AddrPort
	forward *Forward
	cache   *Cache
	tracer  *mocktracer.MockTracer
}

// forwarding runs a whole server with these upstreams.
func forwarding(t *testing.T, servers ...netip.AddrPort) *resolver {
	t.Helper()
	r := &resolver{cache: newCache(t, 100), tracer: mocktracer.New()}
	var err error
	r.forward, err = NewForward(ForwardConfig{
		Upstreams: func() []netip.AddrPort { return servers }, Cache: r.cache, Tracer: r.tracer,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = serve(t, names(t, 0), r.forward, func(s *Server) { s.cfg.Quick = append(s.cfg.Quick, r.cache) })
	return r
}

func TestForwardAndCache(t *testing.T) {
	u := answering(t, "192.0.2.1", 1)
	r := forwarding(t, u.addr)
	for range 3 {
		m := ask(t, udp, r.addr, queryFor("Example.com.", dns.TypeA))
		if len(m.Answer) != 1 || !m.RecursionAvailable || m.Authoritative || len(m.Extra) != 0 {
			t.Fatalf("got %v", m)
		}
	}
	if m := ask(t, tcp, r.addr, queryFor("example.COM.", dns.TypeA).SetEdns0(1232, false)); len(m.Answer) != 1 || m.IsEdns0() == nil {
		t.Errorf("over TCP with EDNS: %v", m)
	}
	if n := u.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if ask(t, udp, r.addr, queryFor("example.com.", dns.TypeA).SetEdns0(1232, true)); u.asked.Load() != 2 {
		t.Error("signatures were not asked for")
	}
	if spans := r.tracer.FinishedSpans(); len(spans) != 2 || spans[0].Tag("dns.name") != "Example.com." {
		t.Errorf("spans: %v", spans)
	}
}

func TestNamesOfTheTableAreNotForwarded(t *testing.T) {
	u := answering(t, "192.0.2.1", 1)
	r := forwarding(t, u.addr)
	for _, name := range []string{"web.", "nosuch.", "nosuch.appswitch.local.", "_80._tcp.nosuch.", "1.0.18.198.in-addr.arpa."} {
		ask(t, udp, r.addr, queryFor(name, dns.TypeA))
	}
	if n := u.asked.Load(); n != 0 {
		t.Errorf("%d queries forwarded", n)
	}
}

func TestFailover(t *testing.T) {
	good := answering(t, "192.0.2.1", 1)
	for name, bad := range map[string]netip.AddrPort{
		"silent": silent(t), "closed": closed(t),
		"SERVFAIL": saying(t, dns.RcodeServerFailure).addr, "REFUSED": saying(t, dns.RcodeRefused).addr,
	} {
		t.Run(name, func(t *testing.T) {
			r := forwarding(t, bad, good.addr)
			if m := ask(t, udp, r.addr, queryFor("a.example.", dns.TypeA)); len(m.Answer) != 1 {
				t.Fatalf("got %v", m)
			}
			if name == "SERVFAIL" || name == "REFUSED" {
				return // alive: it is asked first again
			}
			start := time.Now()
			if m := ask(t, udp, r.addr, queryFor("b.example.", dns.TypeA)); len(m.Answer) != 1 || time.Since(start) > attemptTimeout/2 {
				t.Errorf("the bad server is asked again, %s: %v", time.Since(start), m)
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		servers []netip.AddrPort
		rcode   int
	}{
		"no servers": {nil, dns.RcodeServerFailure},
		"closed":     {[]netip.AddrPort{closed(t)}, dns.RcodeServerFailure},
		"silent":     {[]netip.AddrPort{silent(t)}, dns.RcodeServerFailure},
		"refused":    {[]netip.AddrPort{saying(t, dns.RcodeRefused).addr, saying(t, dns.RcodeRefused).addr}, dns.RcodeRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := forwarding(t, tt.servers...)
			start := time.Now()
			m := ask(t, udp, r.addr, queryFor("example.com.", dns.TypeA).SetEdns0(1232, false))
			if m.Rcode != tt.rcode {
				t.Errorf("got %v", m)
			}
			if tt.rcode == dns.RcodeServerFailure && explanation(m) != dns.ExtendedErrorCodeNetworkError {
				t.Errorf("no explanation: %v", m)
			}
			if d := time.Since(start); d > maxAttempts*attemptTimeout+time.Second/2 {
				t.Errorf("took %s", d)
			}
		})
	}
}

func TestTruncatedRepliesAreFetchedOverTCP(t *testing.T) {
	u := answering(t, "192.0.2.1", 200)
	r := forwarding(t, u.addr)
	if m := ask(t, tcp, r.addr, queryFor("example.com.", dns.TypeA)); len(m.Answer) != 200 || m.Truncated {
		t.Errorf("%d records", len(m.Answer))
	}
	if m := ask(t, udp, r.addr, queryFor("example.com.", dns.TypeA)); !m.Truncated {
		t.Errorf("over UDP: %d records", len(m.Answer))
	}
	if n := u.asked.Load(); n != 2 {
		t.Errorf("asked %d times, want once over each transport", n)
	}
}

func TestServersWithoutEDNS(t *testing.T) {
	u := newUpstream(t, func(_ string, w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.IsEdns0() != nil {
			m.Rcode = dns.RcodeFormatError
		} else {
			m.Answer = []dns.RR{record(q.Question[0].Name + " 60 IN A 192.0.2.1")}
		}
		send(w, m)
	})
	r := forwarding(t, u.addr)
	if m := ask(t, udp, r.addr, queryFor("example.com.", dns.TypeA)); len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
}

func TestForgedRepliesAreIgnored(t *testing.T) {
	u := newUpstream(t, func(_ string, w dns.ResponseWriter, q *dns.Msg) {
		for _, forge := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
			func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Question = nil },
		} {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{record(q.Question[0].Name + " 60 IN A 203.0.113.66")}
			forge(m)
			send(w, m)
		}
		_, _ = w.Write([]byte{1, 2, 3})
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{record(q.Question[0].Name + " 60 IN A 192.0.2.1")}
		send(w, m)
	})
	r := forwarding(t, u.addr)
	m := ask(t, udp, r.addr, queryFor("example.com.", dns.TypeA))
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
		t.Errorf("got %v", m)
	}
}

func TestQueriesShareAnExchange(t *testing.T) {
	const clients = 20
	release := make(chan struct{})
	u := newUpstream(t, func(_ string, w dns.ResponseWriter, q *dns.Msg) {
		<-release
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{record(q.Question[0].Name + " 0 IN A 192.0.2.1")} // not to be cached
		send(w, m)
	})
	r := forwarding(t, u.addr)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			m, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(queryFor("example.com.", dns.TypeA), r.addr.String())
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("got %v %v", m, err)
			}
		})
	}
	for testutil.ToFloat64(r.forward.shared) < clients-1 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if n := u.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	r.forward.mu.Lock()
	defer r.forward.mu.Unlock()
	if len(r.forward.flights) != 0 {
		t.Error("a flight has not landed")
	}
}

func TestStoppingEndsExchanges(t *testing.T) {
	f, err := NewForward(ForwardConfig{
		Upstreams: func() []netip.AddrPort { return []netip.AddrPort{silent(t)} }, Cache: newCache(t, 1), Tracer: mocktracer.New(),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	if m := f.Handle(ctx, clientQuery(t, "example.com.")); m.Rcode != dns.RcodeServerFailure || time.Since(start) > time.Second {
		t.Errorf("after %s: %v", time.Since(start), m)
	}
	if len(f.cfg.Cache.entries) != 0 || len(f.shunned) != 0 {
		t.Error("what was cut short is remembered as a failure")
	}
}

func TestFailingServersAreAskedLast(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	synctest.Test(t, func(t *testing.T) {
		f := &Forward{cfg: ForwardConfig{Upstreams: func() []netip.AddrPort { return []netip.AddrPort{a, b} }}, shunned: map[netip.AddrPort]shun{}}
		order := func(want ...netip.AddrPort) {
			t.Helper()
			if got := f.servers(); !slices.Equal(got, want) {
				t.Errorf("order %v, want %v", got, want)
			}
		}
		order(a, b)
		f.judge(a, net.ErrClosed)
		order(b, a)
		time.Sleep(minShun)
		order(a, b)
		f.judge(a, net.ErrClosed) // twice as long
		time.Sleep(minShun)
		order(b, a)
		f.judge(a, fmt.Errorf("%w: says REFUSED", errUnusable))
		order(a, b)
		for range 10 {
			f.judge(a, net.ErrClosed)
		}
		time.Sleep(maxShun)
		order(a, b)
	})
}

func TestParseServer(t *testing.T) {
	for in, want := range map[string]string{
		"8.8.8.8": "8.8.8.8:53", "127.0.0.1:5533": "127.0.0.1:5533", "2001:db8::1": "[2001:db8::1]:53", "[2001:db8::1]": "[2001:db8::1]:53",
		"[2001:db8::1]:5353": "[2001:db8::1]:5353", "::ffff:8.8.8.8": "8.8.8.8:53",
		"": "", "dns.example": "", "8.8.8.8:": "", "8.8.8.8:0": "", "8.8.8.8:99999": "",
	} {
		got, err := ParseServer(in)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("ParseServer(%q) = %s, %v; want %q", in, got, err, want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("search example.com\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver 10.0.0.2\n")
	synctest.Test(t, func(t *testing.T) {
		self := netip.MustParseAddrPort("10.0.0.1:53")
		r := NewResolvConf(path, func(s netip.AddrPort) bool { return s == self })
		want := func(servers ...string) {
			t.Helper()
			var got []string
			for _, s := range r.Servers() {
				got = append(got, s.String())
			}
			if !slices.Equal(got, servers) {
				t.Errorf("servers %v, want %v", got, servers)
			}
		}
		want("10.0.0.2:53", "[fe80::1%eth0]:53")
		write("nameserver 10.0.0.3\n")
		want("10.0.0.2:53", "[fe80::1%eth0]:53")
		time.Sleep(recheckAfter)
		want("10.0.0.3:53")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(recheckAfter)
		want("10.0.0.3:53")
		missing := NewResolvConf(path, func(netip.AddrPort) bool { return false })
		if s := missing.Servers(); len(s) != 0 {
			t.Errorf("servers of a missing file: %v", s)
		}
	})
}
