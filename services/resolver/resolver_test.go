package resolver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	resolverv1 "appswitch.io/proto/gen/appswitch/resolver/v1"
	"appswitch.io/services/resolver/internal/dnssrv"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is a registry as its contract has it, as far as watchers see: a list first, then changes.
type registry struct {
	registryv1.UnimplementedRegistryServiceServer

	ready chan struct{} // closed when the list may be sent

	mu       sync.Mutex // guards what follows
	revision int64
	table    map[string]ax.Endpoint
	log      []*registryv1.WatchResponse
	news     chan struct{} // closed at a change
}

func newRegistry() *registry {
	return &registry{ready: make(chan struct{}), revision: 1, table: map[string]ax.Endpoint{}, news: make(chan struct{})}
}

func (r *registry) put(e ax.Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table[string(e.ID)] = e
	r.changed(putChange(e))
}

func (r *registry) remove(id ax.EndpointID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.table, string(id))
	r.changed(&registryv1.Change{Op: &registryv1.Change_Delete{Delete: &registryv1.RecordKey{Kind: registryv1.Kind_KIND_ENDPOINT, Key: string(id)}}})
}

func (r *registry) changed(c *registryv1.Change) {
	r.revision++
	r.log = append(r.log, &registryv1.WatchResponse{TableId: "t", Revision: r.revision, Complete: true, Changes: []*registryv1.Change{c}})
	close(r.news)
	r.news = make(chan struct{})
}

func putChange(e ax.Endpoint) *registryv1.Change {
	return &registryv1.Change{Op: &registryv1.Change_Put{Put: &registryv1.Record{Revision: 1, Value: &registryv1.Record_Endpoint{Endpoint: axpb.Endpoint(e)}}}}
}

// Watch always starts with a list: resuming is for its server to offer, not for watchers to rely on.
func (r *registry) Watch(_ *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	select {
	case <-r.ready:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	r.mu.Lock()
	var all []*registryv1.Change
	for _, e := range r.table {
		all = append(all, putChange(e))
	}
	revision, told := r.revision, len(r.log)
	r.mu.Unlock()
	const part = 1000 // a whole list may be larger than a message can be
	for i := 0; i == 0 || i < len(all); i += part {
		end := min(i+part, len(all))
		m := &registryv1.WatchResponse{TableId: "t", Revision: revision, List: true, Complete: end == len(all), Changes: all[i:end]}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	for {
		r.mu.Lock()
		batch, news := r.log[told:], r.news
		r.mu.Unlock()
		for _, m := range batch {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		told += len(batch)
		select {
		case <-news:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// memory connects a client to a server that register fills; stop ends the server.
func memory(t *testing.T, register func(grpc.ServiceRegistrar)) (conn *grpc.ClientConn, stop func()) {
	t.Helper()
	l := bufconn.Listen(64 << 10)
	g := grpc.NewServer()
	register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		g.Stop()
		<-done
	})
	t.Cleanup(func() {
		conn.Close()
		stop()
	})
	return conn, stop
}

func endpoint(id, name, service string) ax.Endpoint {
	return ax.Endpoint{ID: ax.EndpointID(id), App: "a", Node: "n", Cluster: "c", Name: name, Proto: ax.TCP,
		Service: netip.MustParseAddrPort(service), Host: netip.MustParseAddrPort("10.0.0.1:40000")}
}

// config serves at a free port and forwards nowhere.
func testConfig(t *testing.T) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Port = 0
	cfg.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	return cfg
}

func run(t *testing.T, s *Service) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func deps(t *testing.T, r *registry) (d Deps, stop func()) {
	t.Helper()
	conn, stop := memory(t, func(g grpc.ServiceRegistrar) { registryv1.RegisterRegistryServiceServer(g, r) })
	return Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Registry: registryv1.NewRegistryServiceClient(conn)}, stop
}

func ask(t *testing.T, server netip.AddrPort, name string) *dns.Msg {
	t.Helper()
	m, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), server.String())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// silent reports whether a query over UDP gets no reply within a moment.
func silent(t *testing.T, server netip.AddrPort, name string) bool {
	t.Helper()
	_, _, err := (&dns.Client{Timeout: 100 * time.Millisecond}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), server.String())
	if err == nil {
		return false
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatal(err)
	}
	return true
}

// until asks until the reply has this code, and returns how long that took.
func until(t *testing.T, server netip.AddrPort, name string, rcode int) time.Duration {
	t.Helper()
	start := time.Now()
	client := dns.Client{Timeout: 100 * time.Millisecond} // before the first table queries go unanswered
	for time.Since(start) < 10*time.Second {
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), server.String())
		if err == nil && m.Rcode == rcode {
			return time.Since(start)
		}
	}
	t.Fatalf("%s never answers %s", name, dns.RcodeToString[rcode])
	return 0
}

func TestFollowsTheTableAndFailsStatic(t *testing.T) {
	r := newRegistry()
	d, stopRegistry := deps(t, r)
	s, err := New(testConfig(t), d)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Addr().IsValid() || s.Addr().Port() == 0 {
		t.Fatalf("address %s", s.Addr())
	}
	names, _ := memory(t, s.Register)
	run(t, s)
	if !silent(t, s.Addr(), "web.") || s.Ready() {
		t.Error("before the first list: says something")
	}
	r.put(endpoint("e1", "web", "198.18.0.1:80"))
	close(r.ready)
	until(t, s.Addr(), "web.", dns.RcodeSuccess)
	r.put(endpoint("e2", "api", "198.18.0.2:80"))
	until(t, s.Addr(), "api.appswitch.local.", dns.RcodeSuccess)
	r.remove("e2")
	until(t, s.Addr(), "api.appswitch.local.", dns.RcodeNameError)
	if m := ask(t, s.Addr(), "example.com."); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("with nobody to forward to: %v", m)
	}

	stopRegistry()
	if m := ask(t, s.Addr(), "web."); len(m.Answer) != 1 {
		t.Errorf("without registry: %v", m)
	}
	found, err := resolverv1.NewResolverServiceClient(names).Resolve(t.Context(), &resolverv1.ResolveRequest{Name: "web"})
	if err != nil || !slices.Equal(found.GetName().GetIps(), []string{"198.18.0.1"}) {
		t.Errorf("without registry over gRPC: %v %v", found, err)
	}
}

// TestSilentForAMoment starts a resolver whose table does not come. Clients give up when told of a failure, so at first
// they are told nothing; but only at first, and only over UDP, where silence makes them ask again.
func TestSilentForAMoment(t *testing.T) {
	d, _ := deps(t, newRegistry())
	s, err := New(testConfig(t), d)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	if m := ask(t, s.Addr(), "example.com."); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a name that is not of the table: %v", m)
	}
	for _, name := range []string{"web.", "web.appswitch.local."} {
		if !silent(t, s.Addr(), name) {
			t.Errorf("%s: answered at once", name)
		}
		m, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), s.Addr().String())
		if err != nil || m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s over TCP: %v %v", name, m, err)
		}
	}
	end := *s.grace.Load()
	if left := time.Until(end); left <= 0 || left > TableGrace {
		t.Errorf("goes on for %s", left)
	}
	took := until(t, s.Addr(), "web.", dns.RcodeServerFailure)
	if late := time.Since(end); late < 0 || late > time.Second {
		t.Errorf("SERVFAIL after %s, %s off", took, late)
	}
}

// TestLatencyOfAChange is about order of magnitude: a change must not wait for a timer anywhere.
func TestLatencyOfAChange(t *testing.T) {
	r := newRegistry()
	for i := range 20_000 {
		name := fmt.Sprintf("n%d", i)
		e := endpoint(name, name, "198.18.0.1:80")
		r.table[string(e.ID)] = e
	}
	close(r.ready)
	d, _ := deps(t, r)
	s, err := New(testConfig(t), d)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	until(t, s.Addr(), "n0.", dns.RcodeSuccess)
	var took []time.Duration
	for range 50 {
		r.put(endpoint("new", "new", "198.18.9.9:80"))
		took = append(took, until(t, s.Addr(), "new.", dns.RcodeSuccess))
		r.remove("new")
		until(t, s.Addr(), "new.", dns.RcodeNameError)
	}
	slices.Sort(took)
	t.Logf("p50 %s, longest %s", took[25], took[49])
	if took[25] > 50*time.Millisecond {
		t.Errorf("half of the changes took longer than %s", took[25])
	}
}

func TestTakenPort(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			var taken int
			switch network {
			case "udp":
				c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				taken = c.LocalAddr().(*net.UDPAddr).Port
			case "tcp":
				c, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				taken = c.Addr().(*net.TCPAddr).Port
			}
			r := newRegistry()
			close(r.ready)
			r.put(endpoint("e1", "web", "198.18.0.1:80"))
			d, _ := deps(t, r)
			var log bytes.Buffer
			d.Log = slog.New(slog.NewTextHandler(&log, nil))
			cfg := testConfig(t)
			cfg.Port = uint16(taken)
			s, err := New(cfg, d)
			if err != nil {
				t.Fatal(err)
			}
			if s.Addr().Port() == cfg.Port || !strings.Contains(log.String(), s.Addr().String()) {
				t.Errorf("serves at %s, log: %s", s.Addr(), log.String())
			}
			run(t, s)
			until(t, s.Addr(), "web.", dns.RcodeSuccess)
		})
	}
}

func TestAddressesThatCanNotBe(t *testing.T) {
	d, _ := deps(t, newRegistry())
	cfg := testConfig(t)
	cfg.Listen = []string{"127.0.0.1", "192.0.2.77"}
	if _, err := New(cfg, d); err == nil || !strings.Contains(err.Error(), "192.0.2.77") || !strings.Contains(err.Error(), "--dns-listen") {
		t.Errorf("got %v", err)
	}
}

func TestForwardingToItself(t *testing.T) {
	// A port that was free a moment ago, at an address that nobody else uses.
	at := netip.MustParseAddr("127.77.0.53")
	l, err := dnssrv.Listen(netip.AddrPortFrom(at, 0))
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Listen, cfg.Port, cfg.Servers = []string{at.String()}, l.Addr().Port(), []string{l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d, _ := deps(t, newRegistry())
	if _, err := New(cfg, d); err == nil || !strings.Contains(err.Error(), "this resolver itself") {
		t.Errorf("got %v", err)
	}
}

func TestForwardsToResolvConf(t *testing.T) {
	cfg := testConfig(t)
	if err := os.WriteFile(cfg.ResolvConf, []byte("nameserver 127.0.0.9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := deps(t, newRegistry())
	s, err := New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	// Nothing listens there, or a server of this host does: either way it is asked, at port 53.
	ask(t, s.Addr(), "name.example.")
	families, err := d.Metrics.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "appswitch_resolver_forwards_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "no-server" && m.GetCounter().GetValue() > 0 {
				t.Error("resolv.conf is not followed")
			}
		}
		return
	}
	t.Error("nothing was forwarded")
}

func TestWithoutDNS(t *testing.T) {
	r := newRegistry()
	close(r.ready)
	r.put(endpoint("e1", "web", "198.18.0.1:80"))
	d, _ := deps(t, r)
	cfg := testConfig(t)
	cfg.DNS = false
	s, err := New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr().IsValid() || len(s.Addrs()) != 0 {
		t.Errorf("serves DNS at %s", s.Addr())
	}
	conn, _ := memory(t, s.Register)
	run(t, s)
	stream, err := resolverv1.NewResolverServiceClient(conn).WatchNames(t.Context(), &resolverv1.WatchNamesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || !m.GetFull() || len(m.GetUpserts()) < 1 {
		t.Errorf("got %v %v", m, err)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		args []string
		err  string // what it names; "" for none
	}{
		{nil, ""},
		{[]string{"--dns-servers", "127.0.0.1:5533,8.8.8.8", "--dns-domain", "example.org", "--dns-listen", "10.0.0.1,::1", "--dns-allow-forward", "10.0.0.0/8,192.0.2.1"}, ""},
		{[]string{"--dns-servers", "dns.example"}, "dns.example"},
		{[]string{"--dns-servers", "1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1"}, "at most 8"},
		{[]string{"--dns-domain", "a b"}, "--dns-domain"},
		{[]string{"--dns-domain", ""}, "--dns-domain"},
		{[]string{"--dns-listen", "eth0"}, `"eth0"`},
		{[]string{"--dns-allow-forward", "10.0.0.0/33"}, "10.0.0.0/33"},
		{[]string{"--dns-cache-size", "-1"}, "--dns-cache-size -1"},
	} {
		cfg := DefaultConfig()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		cfg.Flags(fs)
		if err := fs.Parse(tt.args); err != nil {
			t.Errorf("%v: %v", tt.args, err)
			continue
		}
		err := cfg.Validate()
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v: got %v, want %q", tt.args, err, tt.err)
		}
	}
}

func TestHost(t *testing.T) {
	node := netip.MustParseAddr("10.0.0.1")
	h := host{listeners: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("10.0.0.1:53")}}
	for server, want := range map[string]bool{"127.0.0.1:53": true, "10.0.0.1:53": true, "127.0.0.53:53": false, "127.0.0.1:5353": false, "10.0.0.2:53": false} {
		if h.resolver(netip.MustParseAddrPort(server)) != want {
			t.Errorf("resolver(%s) = %v", server, !want)
		}
	}
	all := host{listeners: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, addrs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}}
	for server, want := range map[string]bool{"127.0.0.53:53": true, "10.0.0.3:53": true, "10.0.0.3:54": false, "10.0.0.4:53": false} {
		if all.resolver(netip.MustParseAddrPort(server)) != want {
			t.Errorf("at all addresses: resolver(%s) = %v", server, !want)
		}
	}
	var clients []string
	for _, p := range h.clients(node) {
		clients = append(clients, p.String())
	}
	if got := strings.Join(clients, " "); got != "127.0.0.0/8 ::1/128 10.0.0.1/32 127.0.0.1/32 10.0.0.1/32" {
		t.Errorf("clients: %s", got)
	}
	if got := addresses(parsed{}, node); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("127.0.0.1"), node}) {
		t.Errorf("addresses: %v", got)
	}
}
