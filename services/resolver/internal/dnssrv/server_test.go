package dnssrv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/resolver/internal/zone"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const origin = "appswitch.local."

var loopback = netip.MustParseAddr("127.0.0.1")

// names returns a zone with web at one address and many at n.
func names(t testing.TB, n int) *zone.Zone {
	t.Helper()
	b := zone.NewBuilder(origin, []netip.Addr{loopback})
	put := func(name string, a netip.Addr) {
		service := netip.AddrPortFrom(a, 80)
		if err := b.PutEndpoint(ax.Endpoint{ID: ax.MakeEndpointID("a", ax.TCP, service, 40000), Name: name, Proto: ax.TCP, Service: service, Host: netip.AddrPortFrom(loopback, 40000)}); err != nil {
			t.Fatal(err)
		}
	}
	put("web", netip.MustParseAddr("198.18.0.1"))
	for i := range n {
		put("many", netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}))
	}
	return b.Zone(7)
}

// handler is a Handler made of a function.
type handler func(context.Context, *Query) *dns.Msg

func (handler) Name() string                                    { return "test" }
func (h handler) Handle(ctx context.Context, q *Query) *dns.Msg { return h(ctx, q) }
func refuse(_ context.Context, q *Query) *dns.Msg               { return q.Reply(dns.RcodeRefused) }
func everybody(netip.Addr) bool                                 { return true }
func nobody(netip.Addr) bool                                    { return false }
func present(z *zone.Zone) *Names {
	return &Names{Origin: origin, Zone: func() *zone.Zone { return z }}
}

// serve runs a server of z on loopback; change adapts it before it starts.
func serve(t testing.TB, z *zone.Zone, last Handler, change ...func(*Server)) netip.AddrPort {
	t.Helper()
	return serveAt(t, netip.AddrPortFrom(loopback, 0), z, last, change...)
}

func serveAt(t testing.TB, at netip.AddrPort, z *zone.Zone, last Handler, change ...func(*Server)) netip.AddrPort {
	t.Helper()
	l, err := Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Listeners: []*Listener{l}, Quick: []Handler{present(z), Gate{}}, Last: last, MayForward: everybody,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if n := testutil.ToFloat64(s.metrics.failures); n != 0 {
			t.Errorf("%v queries failed inside the server", n)
		}
	})
	return l.Addr()
}

func ask(t testing.TB, network string, server netip.AddrPort, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	if network == udp {
		c.UDPSize = dns.MaxMsgSize
	}
	r, _, err := c.Exchange(m, server.String())
	if err != nil {
		t.Fatalf("%s %s: %v", network, m.Question[0].Name, err)
	}
	return r
}

func queryFor(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

func TestNamesOverBothTransports(t *testing.T) {
	server := serve(t, names(t, 0), handler(refuse))
	for _, network := range []string{udp, tcp} {
		for _, tt := range []struct {
			name          string
			qtype         uint16
			rcode, an, ns int
			aa            bool
		}{
			{"web.", dns.TypeA, dns.RcodeSuccess, 1, 0, true},
			{"wEb.AppSwitch.local.", dns.TypeA, dns.RcodeSuccess, 1, 0, true},
			{"web.", dns.TypeAAAA, dns.RcodeSuccess, 0, 1, true},
			{"nosuch.", dns.TypeA, dns.RcodeNameError, 0, 1, true},
			{"nosuch.appswitch.local.", dns.TypeA, dns.RcodeNameError, 0, 1, true},
			{"1.0.18.198.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, 1, 0, true},
			{"web.", dns.TypeANY, dns.RcodeSuccess, 1, 0, true},
			{"example.com.", dns.TypeANY, dns.RcodeSuccess, 1, 0, false},
			{"example.com.", dns.TypeA, dns.RcodeRefused, 0, 0, false},
			{"web.", dns.TypeAXFR, dns.RcodeRefused, 0, 0, false},
		} {
			r := ask(t, network, server, queryFor(tt.name, tt.qtype))
			if r.Rcode != tt.rcode || len(r.Answer) != tt.an || len(r.Ns) != tt.ns || r.Authoritative != tt.aa || !r.Response || !r.RecursionDesired {
				t.Errorf("%s %s %s: got %v", network, tt.name, dns.TypeToString[tt.qtype], r)
			}
			if r.Question[0].Name != tt.name {
				t.Errorf("question %q came back as %q", tt.name, r.Question[0].Name)
			}
			if len(r.Extra) != 0 {
				t.Errorf("%s: unasked for: %v", tt.name, r.Extra)
			}
		}
	}
}

func TestRepliesComeFromTheAddressAsked(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
		server := serveAt(t, netip.MustParseAddrPort(at), names(t, 0), handler(refuse))
		for _, to := range []string{"127.0.0.1", "127.0.0.2"} { // the client's socket is connected: other sources are dropped
			r := ask(t, udp, netip.AddrPortFrom(netip.MustParseAddr(to), server.Port()), queryFor("web.", dns.TypeA))
			if len(r.Answer) != 1 {
				t.Errorf("%s at %s: %v", to, at, r)
			}
		}
	}
}

// exchangeBytes sends a datagram and returns the reply: nil if none comes, and a valid query
// sent after it is answered.
func exchangeBytes(t *testing.T, server netip.AddrPort, b []byte) []byte {
	t.Helper()
	conn, err := net.Dial(udp, server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	sentinel := queryFor("web.", dns.TypeA)
	sentinel.Id = 0xBEEF
	last, err := sentinel.Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65535)
	read := func(patience time.Duration) (int, error) {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return conn.Read(buf)
	}
	// Several goroutines read the socket: the order of replies says nothing, only silence does.
	if n, err := read(100 * time.Millisecond); err == nil {
		return buf[:n]
	}
	if _, err := conn.Write(last); err != nil {
		t.Fatal(err)
	}
	n, err := read(5 * time.Second)
	if err != nil {
		t.Fatalf("the server is gone: %v", err)
	}
	if binary.BigEndian.Uint16(buf) == 0xBEEF {
		return nil
	}
	return buf[:n]
}

func packed(t *testing.T, change func(*dns.Msg)) []byte {
	t.Helper()
	m := queryFor("web.", dns.TypeA)
	m.Id = 77
	change(m)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOddPackets(t *testing.T) {
	server := serve(t, names(t, 0), handler(refuse))
	opt := func(version uint8) *dns.OPT {
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		o.SetVersion(version)
		o.SetUDPSize(4096)
		return o
	}
	whole := packed(t, func(*dns.Msg) {})
	for _, tt := range []struct {
		name  string
		bytes []byte
		rcode int // -1: no reply
	}{
		{"empty", []byte{}, -1},
		{"short", whole[:11], -1},
		{"header only, one question announced", whole[:12], dns.RcodeFormatError},
		{"cut", whole[:len(whole)-1], dns.RcodeFormatError},
		{"pointer to itself", append(slices.Clone(whole[:12]), 0xC0, 12, 0, 1, 0, 1), dns.RcodeFormatError},
		{"reply", packed(t, func(m *dns.Msg) { m.Response = true }), -1},
		{"malformed reply", append(slices.Clone(packed(t, func(m *dns.Msg) { m.Response = true })[:14]), 0xFF), -1},
		{"no question", packed(t, func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two questions", packed(t, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"update", packed(t, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"notify", packed(t, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"chaos", packed(t, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"EDNS 1", packed(t, func(m *dns.Msg) { m.Extra = append(m.Extra, opt(1)) }), dns.RcodeBadVers},
		{"two OPT", packed(t, func(m *dns.Msg) { m.Extra = append(m.Extra, opt(0), opt(0)) }), dns.RcodeFormatError},
		{"type OPT", packed(t, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }), dns.RcodeFormatError},
		{"trailing bytes", append(slices.Clone(whole), 1, 2, 3), dns.RcodeSuccess},
	} {
		b := exchangeBytes(t, server, tt.bytes)
		if b == nil {
			if tt.rcode != -1 {
				t.Errorf("%s: no reply", tt.name)
			}
			continue
		}
		r := new(dns.Msg)
		if err := r.Unpack(b); err != nil || r.Rcode != tt.rcode || r.Id != 77 || !r.Response {
			t.Errorf("%s: %v %v, want rcode %d", tt.name, err, r, tt.rcode)
		}
	}
}

func TestEDNS(t *testing.T) {
	server := serve(t, names(t, 100), handler(refuse))
	for _, tt := range []struct {
		advertised, limit int
		do                bool
	}{{0, 512, false}, {512, 512, false}, {100, 512, true}, {800, 800, false}, {1232, 1232, true}, {65535, 1232, false}} {
		m := queryFor("many.", dns.TypeA)
		if tt.advertised > 0 {
			m.SetEdns0(uint16(tt.advertised), tt.do)
		}
		r := ask(t, udp, server, m)
		r.Compress = true
		if n := r.Len(); n > tt.limit || n < tt.limit-32 {
			t.Errorf("advertised %d: %d bytes, want at most and nearly %d", tt.advertised, n, tt.limit)
		}
		if !r.Truncated {
			t.Errorf("advertised %d: %d records of 100 and no TC", tt.advertised, len(r.Answer))
		}
		opt := r.IsEdns0()
		if (opt != nil) != (tt.advertised > 0) {
			t.Fatalf("advertised %d: OPT is %v", tt.advertised, opt)
		}
		if opt != nil && (opt.UDPSize() != MaxUDPSize || opt.Do() != tt.do || opt.Version() != 0) {
			t.Errorf("advertised %d: %v", tt.advertised, opt)
		}
	}
	if r := ask(t, tcp, server, queryFor("many.", dns.TypeA)); len(r.Answer) != 100 || r.Truncated {
		t.Errorf("over TCP: %d records, TC %v", len(r.Answer), r.Truncated)
	}
}

func TestGlueIsDroppedBeforeAnswers(t *testing.T) {
	server := serve(t, names(t, 28), handler(refuse))
	r := ask(t, udp, server, queryFor("_80._tcp.many.", dns.TypeSRV))
	if len(r.Answer) != 1 || len(r.Extra) != 0 || r.Truncated {
		t.Errorf("got %v", r)
	}
	r = ask(t, tcp, server, queryFor("_80._tcp.many.", dns.TypeSRV))
	if len(r.Answer) != 1 || len(r.Extra) != 28 {
		t.Errorf("over TCP got %v", r)
	}
}

// explanation returns the code of the extended error, 0xFFFF for none.
func explanation(m *dns.Msg) uint16 {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return e.InfoCode
			}
		}
	}
	return 0xFFFF
}

func TestStrangersGetOnlyTheZone(t *testing.T) {
	forwarded := handler(func(_ context.Context, q *Query) *dns.Msg {
		t.Errorf("%s is forwarded", q.Name)
		return nil
	})
	server := serve(t, names(t, 0), forwarded, func(s *Server) { s.cfg.MayForward = nobody })
	if r := ask(t, udp, server, queryFor("web.", dns.TypeA)); len(r.Answer) != 1 || r.RecursionAvailable {
		t.Errorf("web: %v", r)
	}
	if r := ask(t, udp, server, queryFor("nosuch.", dns.TypeA)); r.Rcode != dns.RcodeNameError {
		t.Errorf("nosuch: %v", r)
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeANY, dns.TypePTR} {
		r := ask(t, udp, server, queryFor("example.com.", qtype).SetEdns0(1232, false))
		if r.Rcode != dns.RcodeRefused || r.RecursionAvailable || explanation(r) != dns.ExtendedErrorCodeProhibited {
			t.Errorf("example.com: %v", r)
		}
	}
}

func TestBeforeTheFirstTable(t *testing.T) {
	var forwarded atomic.Int32
	server := serve(t, nil, handler(func(_ context.Context, q *Query) *dns.Msg {
		forwarded.Add(1)
		return q.Reply(dns.RcodeSuccess)
	}))
	for _, name := range []string{"web.", "web.appswitch.local.", "appswitch.local."} {
		r := ask(t, udp, server, queryFor(name, dns.TypeA).SetEdns0(1232, false))
		if r.Rcode != dns.RcodeServerFailure || explanation(r) != dns.ExtendedErrorCodeNotReady {
			t.Errorf("%s: %v", name, r)
		}
	}
	if r := ask(t, udp, server, queryFor("example.com.", dns.TypeA)); r.Rcode != dns.RcodeSuccess || forwarded.Load() != 1 {
		t.Errorf("example.com: %v", r)
	}
}

func TestSilenceWhileTheTableIsAboutToArrive(t *testing.T) {
	var soon, arrived atomic.Bool
	soon.Store(true)
	z := names(t, 0)
	handler := &Names{Origin: origin, Soon: soon.Load, Zone: func() *zone.Zone {
		if arrived.Load() {
			return z
		}
		return nil
	}}
	var s *Server
	server := serve(t, nil, Gate{}, func(made *Server) { s = made; s.cfg.Quick = []Handler{handler} })
	expect := func(network string, rcode int) {
		t.Helper()
		c := dns.Client{Net: network, Timeout: 200 * time.Millisecond}
		m, _, err := c.Exchange(queryFor("web.", dns.TypeA), server.String())
		var timeout net.Error
		if rcode < 0 {
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%s: got %v %v, want no reply", network, m, err)
			}
		} else if err != nil || m.Rcode != rcode {
			t.Errorf("%s: got %v %v, want %s", network, m, err, dns.RcodeToString[rcode])
		}
	}
	expect(udp, -1)
	expect(tcp, dns.RcodeServerFailure)
	if n := testutil.ToFloat64(s.metrics.silenced); n != 1 {
		t.Errorf("counted %v", n)
	}
	soon.Store(false)
	expect(udp, dns.RcodeServerFailure)
	soon.Store(true)
	arrived.Store(true)
	expect(udp, dns.RcodeSuccess)
	expect(tcp, dns.RcodeSuccess)
}

func TestPipelining(t *testing.T) {
	release := make(chan struct{})
	server := serve(t, names(t, 0), handler(func(ctx context.Context, q *Query) *dns.Msg {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return q.Reply(dns.RcodeSuccess)
	}))
	conn, err := net.Dial(tcp, server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &dns.Conn{Conn: conn}
	for i, name := range []string{"slow.example.", "web."} {
		m := queryFor(name, dns.TypeA)
		m.Id = uint16(i)
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { // what was asked is answered all the same
		t.Fatal(err)
	}
	if r, err := c.ReadMsg(); err != nil || r.Id != 1 {
		t.Fatalf("first reply: %v %v", r, err)
	}
	close(release)
	if r, err := c.ReadMsg(); err != nil || r.Id != 0 {
		t.Fatalf("second reply: %v %v", r, err)
	}
	if _, err := c.ReadMsg(); err == nil {
		t.Error("the connection stays open")
	}
}

func TestOverflow(t *testing.T) {
	entered := make(chan struct{})
	var server *Server
	addr := serve(t, names(t, 0), handler(func(ctx context.Context, q *Query) *dns.Msg {
		entered <- struct{}{}
		<-ctx.Done()
		return nil
	}), func(s *Server) { server, s.waiting = s, make(chan struct{}, 1) })
	conn, err := net.Dial(udp, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := (&dns.Conn{Conn: conn}).WriteMsg(queryFor("a.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	<-entered
	if r := ask(t, udp, addr, queryFor("b.example.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v", r)
	}
	if r := ask(t, udp, addr, queryFor("web.", dns.TypeA)); len(r.Answer) != 1 {
		t.Errorf("names wait for others: %v", r)
	}
	if n := testutil.ToFloat64(server.metrics.overflow.WithLabelValues("waiting")); n != 1 {
		t.Errorf("%v counted, want 1", n)
	}
}

func TestConnectionLimit(t *testing.T) {
	addr := serve(t, names(t, 0), handler(refuse), func(s *Server) { s.conns = make(chan struct{}, 1) })
	first, err := net.Dial(tcp, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c := &dns.Conn{Conn: first}
	if err := c.WriteMsg(queryFor("web.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial(tcp, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("the second connection is served")
	}
	first.Close()
	for range 100 { // until the server has noticed
		r, _, err := (&dns.Client{Net: tcp}).Exchange(queryFor("web.", dns.TypeA), addr.String())
		if err == nil && len(r.Answer) == 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the slot is never given back")
}

func TestPanickingHandler(t *testing.T) {
	s, err := New(Config{
		Quick: []Handler{handler(func(context.Context, *Query) *dns.Msg { panic("broken") })}, Last: handler(refuse), MayForward: everybody,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var r dns.Msg
	s.serve(t.Context(), nil, packet{transport: udp, data: packed(t, func(*dns.Msg) {}), done: func(b []byte) {
		if err := r.Unpack(b); err != nil {
			t.Error(err)
		}
	}})
	if r.Rcode != dns.RcodeServerFailure || testutil.ToFloat64(s.metrics.failures) != 1 {
		t.Errorf("got %v", &r)
	}
}

func TestListenTakesOnePortForBoth(t *testing.T) {
	l, err := Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.packets.LocalAddr().(*net.UDPAddr).Port; got != int(l.Addr().Port()) {
		t.Errorf("UDP port %d, Addr %s", got, l.Addr())
	}
	if got := l.stream.Addr().(*net.TCPAddr).Port; got != int(l.Addr().Port()) {
		t.Errorf("TCP port %d, Addr %s", got, l.Addr())
	}
	if second, err := Listen(l.Addr()); err == nil {
		second.Close()
		t.Error("the same port is bound twice")
	}
}

func BenchmarkNames(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			cache, err := NewCache(100, prometheus.NewRegistry())
			if err != nil {
				b.Fatal(err)
			}
			addr := serve(b, names(b, 0), handler(refuse), func(s *Server) { s.cfg.Quick = append(s.cfg.Quick, cache) })
			question, err := queryFor("web.appswitch.local.", dns.TypeA).SetEdns0(1232, false).Pack()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetParallelism((clients + 1) / 2) // times GOMAXPROCS, 2 where this was measured
			if clients == 1 {
				once(b, addr, question, b.Loop)
			} else {
				b.RunParallel(func(pb *testing.PB) { once(b, addr, question, pb.Next) })
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
		})
	}
}

func once(b *testing.B, addr netip.AddrPort, question []byte, next func() bool) {
	conn, err := net.Dial(udp, addr.String())
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	buf := make([]byte, MaxUDPSize)
	for next() {
		if _, err := conn.Write(question); err != nil {
			b.Error(err)
			return
		}
		if n, err := conn.Read(buf); err != nil || n < 50 {
			b.Errorf("%d bytes, %v", n, err)
			return
		}
	}
}
