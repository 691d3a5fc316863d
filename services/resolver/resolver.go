// Package resolver answers for the names of the service table, over DNS and gRPC, and forwards all other names.
//
// A listen() that the registry has seen is an answer a moment later: the table is watched (internal/feed), each change
// makes a new immutable zone (internal/zone), and the DNS server (internal/dnssrv) and the gRPC service
// (internal/server) read the newest. Invariant: it fails static. Without the registry it goes on answering from the
// last table; before the first it says nothing for a moment (TableGrace), and then that it doesn't know, rather than that
// a name doesn't exist. It is no open resolver: all clients get names of the table, but only queries from the node's own
// addresses, where those of managed applications come from, are forwarded. Start reading at [Service.Run].
package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	resolverv1 "appswitch.io/proto/gen/appswitch/resolver/v1"
	"appswitch.io/services/resolver/internal/dnssrv"
	"appswitch.io/services/resolver/internal/feed"
	"appswitch.io/services/resolver/internal/server"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// TableGrace is how long after the start the first table is expected at any moment: until then clients that ask over UDP
// are left to ask again, as one that is told of a failure gives up.
const TableGrace = 5 * time.Second

// Deps is what a resolver works with. All of it is required, but Tracer.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Tracer   opentracing.Tracer
	Registry registryv1.RegistryServiceClient
}

// Service is a resolver.
type Service struct {
	log       *slog.Logger
	watch     *watch.Watcher
	feed      *feed.Feed
	server    *server.Server
	listeners []*dnssrv.Listener
	dns       *dnssrv.Server // nil with DNS switched off
	addr      netip.AddrPort
	// forwarders is nil with DNS switched off.
	forwarders *forwarders
	grace      atomic.Pointer[time.Time] // when TableGrace ends; nil before Run
}

// New makes a resolver and binds its addresses, so that Addr is known to those who need it before anything runs. Run
// does the work and releases them; a resolver that is never run must be closed.
func New(cfg Config, deps Deps) (*Service, error) {
	p, err := cfg.parse()
	if err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	if deps.Log == nil || deps.Metrics == nil || deps.Registry == nil {
		return nil, errors.New("resolver: Log, Metrics and Registry are required")
	}
	if deps.Tracer == nil {
		deps.Tracer = opentracing.NoopTracer{}
	}
	s := &Service{log: deps.Log}
	if err := s.build(cfg, p, deps); err != nil {
		return nil, errors.Join(fmt.Errorf("resolver: %w", err), s.Close())
	}
	return s, nil
}

func (s *Service) build(cfg Config, p parsed, deps Deps) (err error) {
	self := append(addresses(p, cfg.NodeAddr), cfg.NodeAddr)
	s.feed = feed.New(p.origin, reachable(self), deps.Log)
	if err := s.measure(deps.Metrics); err != nil {
		return err
	}
	if s.server, err = server.New(s.feed, deps.Metrics); err != nil {
		return err
	}
	s.watch, err = watch.New(watch.Config{
		Service: "resolver", Client: deps.Registry, Kinds: feed.Kinds(), Handler: s.feed, Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer,
	})
	if err != nil {
		return err
	}
	if !cfg.DNS {
		return nil
	}
	if s.listeners, err = bind(addresses(p, cfg.NodeAddr), cfg.Port, deps.Log); err != nil {
		return err
	}
	s.addr = preferred(s.listeners)
	return s.buildDNS(cfg, p, deps)
}

// reachable drops addresses at which the resolver is reached from its own host only, unless there are no others.
func reachable(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() {
			out = append(out, a.Unmap())
		}
	}
	if len(out) == 0 {
		return addrs
	}
	return out
}

func (s *Service) buildDNS(cfg Config, p parsed, deps Deps) error {
	h, err := newHost(s.listeners)
	if err != nil {
		return err
	}
	s.forwarders = newForwarders(h.resolver, dnssrv.NewResolvConf(cfg.ResolvConf, h.resolver).Servers)
	if err := s.forwarders.set(p.servers); err != nil {
		return err
	}
	cache, err := dnssrv.NewCache(cfg.CacheSize, deps.Metrics)
	if err != nil {
		return err
	}
	forward, err := dnssrv.NewForward(dnssrv.ForwardConfig{
		Upstreams: s.forwarders.servers, Cache: cache, Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer,
	})
	if err != nil {
		return err
	}
	s.dns, err = dnssrv.New(dnssrv.Config{
		Listeners:  s.listeners,
		Quick:      []dnssrv.Handler{&dnssrv.Names{Origin: p.origin, Zone: s.feed.Zone, Soon: s.starting}, dnssrv.Gate{}, cache},
		Last:       forward,
		MayForward: dnssrv.Prefixes(append(h.clients(cfg.NodeAddr), p.allow...)),
		Log:        deps.Log, Metrics: deps.Metrics,
	})
	return err
}

func (s *Service) measure(r prometheus.Registerer) error {
	names := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "appswitch", Subsystem: "resolver", Name: "names", Help: "Names in the zone.",
	}, func() float64 {
		if z := s.feed.Zone(); z != nil {
			return float64(z.Len())
		}
		return 0
	})
	return r.Register(names)
}

// Addr returns where managed applications find DNS, over UDP and TCP; the zero value with DNS switched off. It holds
// from New on, and is answered while Run runs.
func (s *Service) Addr() netip.AddrPort { return s.addr }

// Addrs returns all addresses at which DNS is served.
func (s *Service) Addrs() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(s.listeners))
	for _, l := range s.listeners {
		out = append(out, l.Addr())
	}
	return out
}

// Ready reports whether the resolver has seen the whole service table.
func (s *Service) Ready() bool { return s.feed.Zone() != nil }

// Register puts the resolver's gRPC service on a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	resolverv1.RegisterResolverServiceServer(r, s.server)
}

// Close releases the addresses of a resolver that is not run.
func (s *Service) Close() error { return unbind(s.listeners) }

// starting reports whether the resolver has only just been started.
func (s *Service) starting() bool {
	end := s.grace.Load()
	return end != nil && time.Now().Before(*end)
}

// Run follows the service table and serves DNS until ctx ends; then it ends all streams.
func (s *Service) Run(ctx context.Context) error {
	defer s.server.Stop()
	end := time.Now().Add(TableGrace)
	s.grace.Store(&end)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watch.Run(ctx) })
	if s.dns != nil {
		for _, a := range s.Addrs() {
			s.log.Info("serving DNS", "address", a.String())
		}
		g.Go(func() error { return s.dns.Run(ctx) })
	}
	return g.Wait()
}
