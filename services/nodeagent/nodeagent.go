// Package nodeagent is the service on every node that carries out applications' network calls, publishes what listens
// and decides what connects.
//
// Invariant: an application never notices that the agent, or anything behind it, dies and comes back: sockets are the
// kernel's, calls in flight and what sockets stand for are journalled, and decisions are made from the last snapshot.
// Start reading at [New], then internal/driver/seccomp.
package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/host"
	"appswitch.io/internal/route"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/nodeagent/internal/admission"
	"appswitch.io/services/nodeagent/internal/attach"
	"appswitch.io/services/nodeagent/internal/conncount"
	"appswitch.io/services/nodeagent/internal/dnsrelay"
	"appswitch.io/services/nodeagent/internal/driver/seccomp"
	"appswitch.io/services/nodeagent/internal/flows"
	"appswitch.io/services/nodeagent/internal/health"
	"appswitch.io/services/nodeagent/internal/journal"
	"appswitch.io/services/nodeagent/internal/portpool"
	"appswitch.io/services/nodeagent/internal/publish"
	"appswitch.io/services/nodeagent/internal/routes"
	"appswitch.io/services/nodeagent/internal/server"
	"appswitch.io/services/nodeagent/internal/sockdiag"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/standing"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// maxSockets is how many sockets of applications survive a restart of the agent.
const maxSockets = 1 << 20

// spareProcs are scheduler slots (GOMAXPROCS) beyond the processors. A thread that serves an application spends its time
// in system calls; if every slot is in use, the runtime takes such a thread's slot away, and its return from the call
// then costs context switches in the middle of an application's connect.
const spareProcs = 4

// Deps are what an agent works with.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Tracer   opentracing.Tracer
	Registry registryv1.RegistryServiceClient
	Router   routerv1.RouterServiceClient
	// ResolverAddr tells where name lookups go; nil: Config.ResolverAddr.
	ResolverAddr func() netip.AddrPort
}

// Service is a node agent.
type Service struct {
	cfg       Config
	log       *slog.Logger
	node      ax.Node
	journal   *journal.File
	table     *socktab.Table
	ports     *portpool.Pool
	publisher *publish.Publisher
	routes    *routes.Watcher
	flows     *flows.Log
	conns     *conncount.Counter
	outliers  *route.Outliers
	board     *standing.Board
	health    *health.Checker
	driver    *seccomp.Driver
	gate      *admission.Gate
	manager   *attach.Manager
	server    *attach.Server
	grpc      *server.Server
}

// New takes up the state that an earlier agent left; it starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := checkNamespaces(); err != nil {
		return nil, err
	}
	if err := host.CheckKernel(host.Release()); err != nil {
		return nil, err
	}
	addr, err := InterfaceAddr(cfg.NodeInterface)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: deps.Log, node: cfg.node(addr)}
	if err := s.openState(); err != nil {
		return nil, err
	}
	if s.publisher, err = publish.New(publish.Config{Node: s.node, KeepOnExit: true}, publish.Deps{Client: deps.Registry, Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer}); err != nil {
		return nil, err
	}
	if s.routes, err = routes.New(routes.Deps{Client: deps.Router, Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer}, s.node.Name); err != nil {
		return nil, err
	}
	if s.flows, err = flows.New(deps.Metrics); err != nil {
		return nil, err
	}
	if s.conns, err = conncount.New(deps.Metrics); err != nil {
		return nil, err
	}
	s.outliers = route.NewOutliers(cfg.Outliers)
	if err := registerOutliers(s.outliers, deps.Metrics); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s.board = standing.New(s.publisher)
	if s.health, err = health.New(health.Deps{Log: deps.Log, Metrics: deps.Metrics, Table: s.table, Changed: s.board.SetHealth}); err != nil {
		return nil, err
	}
	decider, err := newDecider(s.conns, s.outliers, deps.Metrics)
	if err != nil {
		return nil, err
	}
	metrics, err := seccomp.NewMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	resolver := deps.ResolverAddr
	if resolver == nil {
		fixed, _ := netip.ParseAddrPort(cfg.ResolverAddr)
		resolver = func() netip.AddrPort { return fixed }
	}
	relay, err := dnsrelay.New(dnsrelay.Config{Resolver: resolver}, dnsrelay.Deps{Log: deps.Log, Metrics: deps.Metrics})
	if err != nil {
		return nil, err
	}
	s.driver = seccomp.New(seccomp.Config{NodeAddr: addr, AgentTimeout: cfg.AgentTimeout}, seccomp.Deps{
		Log: deps.Log, Table: s.table, Ports: s.ports, Routes: s.routes, Decider: decider,
		Publisher: s.board, Flows: s.flows, Resolver: resolver, Metrics: metrics, Relay: relay, Conns: s.conns, Outliers: s.outliers,
	})
	rules, err := admission.ParseRules(cfg.Admit)
	if err != nil {
		return nil, err
	}
	if s.gate, err = admission.NewGate(rules, deps.Log, deps.Metrics); err != nil {
		return nil, err
	}
	s.manager, err = attach.NewManager(attach.Config{
		Node: s.node, AgentTimeout: cfg.AgentTimeout, DNS: cfg.DNS, StateDir: filepath.Join(cfg.StateDir, "apps"), Clean: cfg.Clean,
	}, attach.Deps{Log: deps.Log, Driver: s.driver, Publisher: s.publisher, Table: s.table, Gate: s.gate})
	if err != nil {
		return nil, err
	}
	s.board.Connect(s.health, s.manager.Wishes)
	s.manager.OnChange(s.board.Refresh)
	if err := s.registerSizes(deps.Metrics); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s.flows.Identify(s.manager.Identity)
	s.server = attach.NewServer(deps.Log, s.manager, cfg.RunDir)
	s.grpc = server.New(view{s}, s.flows)
	return s, nil
}

// newDecider returns what decides connects, with the metric of its bounds.
func newDecider(load route.Load, outliers *route.Outliers, r prometheus.Registerer) (*route.Decider, error) {
	d := route.NewDecider(route.Config{Load: load, Outliers: outliers})
	return d, r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "appswitch_nodeagent_balance_forgotten_total",
		Help: "Turns of services and affinities of clients that were forgotten because there were too many.",
	}, func() float64 { return float64(d.Overflows()) }))
}

// checkNamespaces refuses to run where the agent can't see its applications' processes.
func checkNamespaces() error {
	self, err := os.Readlink("/proc/self")
	if err == nil && self != fmt.Sprint(os.Getpid()) {
		return fmt.Errorf("/proc is not that of the agent's process-id namespace: start the agent in the host's (docker: --pid=host)")
	}
	return err
}

// openState opens the journal and takes up the sockets in it that still exist.
func (s *Service) openState() error {
	if err := os.MkdirAll(s.cfg.StateDir, 0o700); err != nil {
		return host.DirError("--agent-state-dir", err)
	}
	var err error
	if s.ports, err = portpool.New(s.cfg.Ports); err != nil {
		return err
	}
	if s.journal, err = journal.Open(filepath.Join(s.cfg.StateDir, "sockets.journal"), socktab.RecordSize, maxSockets, s.log); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = host.DirError("--agent-state-dir", err)
		}
		return err
	}
	if s.cfg.Clean {
		if err := s.journal.Reset(); err != nil {
			return err
		}
	}
	s.table = socktab.New(s.journal, s.log)
	return nil
}

// restore enters the journalled sockets into the table, and publishes again what listens.
func (s *Service) restore() error {
	alive, err := openSockets()
	if err != nil {
		return err
	}
	now := time.Now()
	s.journal.Load(func(slot int, data []byte) {
		s.table.Restore(slot, data, func(cookie uint64) bool { return alive[cookie] }, now)
	})
	seen := map[uint16]bool{}
	for _, sock := range s.table.List("") {
		if sock.HostPeer.IsValid() {
			s.conns.Opened(sock.Cookie, sock.Proto, sock.HostPeer)
		}
		if !sock.Pooled {
			continue
		}
		port := sock.Host.Port()
		if seen[port] {
			s.ports.Share(port)
		} else {
			s.ports.Reserve(port)
		}
		seen[port] = true
	}
	for _, app := range s.manager.Saved() {
		for _, sock := range s.table.List(app.ID) {
			if sock.Serves() {
				s.board.PutEndpoint(seccomp.Endpoint(app, sock))
			}
		}
	}
	s.publisher.Restored()
	return nil
}

// openSockets lists the cookies of the host's sockets that some process has open. What the kernel still lists of a closed
// one, in TIME_WAIT for instance, has the same cookie and no inode; its end will not be reported. It looks twice: where
// others come and go meanwhile the kernel may leave one out, and one that is left out counts as closed.
func openSockets() (map[uint64]bool, error) {
	open := map[uint64]bool{}
	for range 2 {
		if err := sockdiag.Dump(func(d sockdiag.Sock) {
			if d.Inode != 0 {
				open[d.Cookie] = true
			}
		}); err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
	}
	return open, nil
}

// Register adds the agent's gRPC service to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { s.grpc.Register(r) }

// Run serves until ctx is done. Applications go on; their calls wait for the next agent.
func (s *Service) Run(ctx context.Context) error {
	defer s.journal.Close()
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU() + spareProcs)
	}
	monitor, err := sockdiag.OpenDestroy()
	if err != nil {
		return fmt.Errorf("watch for closed sockets: %w", err)
	}
	defer monitor.Close()
	monitor.Unanswered = s.driver.Unanswered
	if err := s.restore(); err != nil { // after the monitor is open: no close is missed
		return err
	}
	if err := s.writeResolvConf(); err != nil {
		return err
	}
	listener, err := s.server.Listen()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.publisher.Run(ctx) })
	g.Go(func() error { return s.routes.Run(ctx) })
	g.Go(func() error { return s.manager.Run(ctx) })
	g.Go(func() error { return s.driver.Run(ctx) })
	g.Go(func() error { return s.health.Run(ctx) })
	g.Go(func() error { return s.forgetOutliers(ctx) })
	g.Go(func() error { return s.server.Run(ctx, listener) })
	g.Go(func() error {
		return monitor.Run(ctx, func(cookies []uint64) {
			for _, c := range cookies {
				s.socketClosed(c)
			}
		}, s.resync)
	})
	return g.Wait()
}

func (s *Service) socketClosed(cookie uint64) {
	s.conns.Closed(cookie)
	s.driver.SocketClosed(cookie)
}

// resync finds the closed sockets whose events were lost.
func (s *Service) resync() {
	before := s.table.List("") // first: a socket that is made meanwhile must not seem closed
	alive, err := openSockets()
	if err != nil {
		s.log.Error("sockets closed while events were lost stay in the table", "error", err)
		return
	}
	for _, sock := range before {
		if sock.Gone(func(cookie uint64) bool { return alive[cookie] }) {
			s.socketClosed(sock.Cookie)
		}
	}
}
