// Package daemon runs everything that a node needs in one process: `ax daemon`.
//
// The five services are those of the separate daemons. They share one gRPC server and call each other through it, in
// memory, so that interceptors, limits and errors are the same in both forms. Invariant: everything is built before
// anything runs, and if one part fails all of them end. Start reading at [Run].
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"sync/atomic"
	"time"

	"appswitch.io/internal/config"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/telemetry"
	"appswitch.io/internal/version"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/gateway"
	"appswitch.io/services/nodeagent"
	"appswitch.io/services/registry"
	"appswitch.io/services/resolver"
	"appswitch.io/services/router"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
)

// Run runs a daemon with complete options until ctx ends, and returns nil if that is why it ended. It logs to logs.
func Run(ctx context.Context, o *Options, logs io.Writer) (err error) {
	unlock, err := lockState(o.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	d := &daemon{}
	d.missing.Store(new("everything"))
	defer func() { err = errors.Join(err, d.close()) }()
	tel, err := telemetry.New(o.Telemetry, telemetry.Options{Program: "ax", Output: logs, Health: d.health})
	if err != nil {
		return err
	}
	d.log = tel.Log
	if err := d.build(ctx, o, tel); err != nil {
		return err
	}
	d.log.Info("starting", "version", version.Get().String(), "node", o.NodeAgent.NodeName, "address", o.Resolver.NodeAddr.String(),
		"grpc", d.tcp.Addr().String(), "rest", o.restAddrs(), "state", o.StateDir)
	if err := runStages(ctx, d.log, d.stages(o, tel)); err != nil {
		return err
	}
	d.log.Info("stopped")
	return nil
}

// daemon is what Run builds.
type daemon struct {
	log    *slog.Logger
	server *rpc.Server
	pipe   net.Listener // gRPC within the process
	tcp    net.Listener // gRPC for everybody else
	conns  []*grpc.ClientConn

	registry *registry.Service
	router   *router.Service
	resolver *resolver.Service
	agent    *nodeagent.Service
	gateway  *gateway.Service

	reloader *config.Reloader // nil: options are not reloaded

	missing atomic.Pointer[string] // what the daemon waits for; nil once it was ready
}

// service is what the five have in common.
type service interface {
	Register(grpc.ServiceRegistrar)
	Run(ctx context.Context) error
}

// build makes all parts and starts none. What a failed build leaves, close removes.
func (d *daemon) build(ctx context.Context, o *Options, tel *telemetry.Telemetry) (err error) {
	if o.Resolver.NodeAddr, err = nodeagent.InterfaceAddr(o.NodeAgent.NodeInterface); err != nil {
		return fmt.Errorf("--node-interface: %w", err)
	}
	d.server, err = rpc.NewServer(rpc.ServerConfig{Log: tel.Log, Metrics: tel.Metrics, Tracer: tel.Tracer, TLS: o.TLS, Reflection: o.Reflection})
	if err != nil {
		return err
	}
	var dial func(rpc.ClientConfig) (*grpc.ClientConn, error)
	d.pipe, dial = rpc.Pipe()
	// A connection for each client: streams of one can't hold up another.
	connect := func() grpc.ClientConnInterface {
		conn, dialErr := dial(rpc.ClientConfig{Metrics: tel.Metrics, Tracer: tel.Tracer})
		if dialErr != nil {
			err = errors.Join(err, dialErr)
			return nil
		}
		d.conns = append(d.conns, conn)
		return conn
	}
	peers := connections{router: connect(), resolver: connect(), agent: connect(), gateway: connect()}
	if err != nil {
		return err
	}
	if err := d.buildServices(o, tel, peers); err != nil {
		return err
	}
	services := []service{d.registry, d.router, d.resolver, d.agent, d.gateway}
	for _, s := range services {
		s.Register(d.server)
	}
	if err := d.buildReload(o, tel, services); err != nil {
		return err
	}
	// The last thing that can fail, so that a second daemon on this machine has done nothing by then.
	if d.tcp, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.GRPCListen); err != nil {
		return fmt.Errorf("--grpc-listen: %w: choose another, or stop what uses it; is a daemon running already?%s", err, beside(os.Geteuid()))
	}
	return nil
}

// beside says how a normal user runs a daemon on a machine where one has the ports already, which may well be root's.
func beside(uid int) string {
	if uid == 0 {
		return ""
	}
	return " To run your own beside it: ax daemon --rest-port 16664 --grpc-listen 127.0.0.1:16665 --metrics-listen 127.0.0.1:16666, " +
		"and AX_SERVER=http://127.0.0.1:16664 for other commands"
}

// connections are those of the services to the others, by who calls.
type connections struct{ router, resolver, agent, gateway grpc.ClientConnInterface }

func (d *daemon) buildServices(o *Options, tel *telemetry.Telemetry, conns connections) (err error) {
	log := func(name string) *slog.Logger { return tel.Log.With("service", name) }
	if d.registry, err = registry.New(o.Registry, registry.Deps{Log: tel.Log, Metrics: tel.Metrics, Tracer: tel.Tracer}); err != nil {
		return err
	}
	d.router, err = router.New(o.Router, router.Deps{
		Log: log("router"), Metrics: tel.Metrics, Tracer: tel.Tracer, Registry: registryv1.NewRegistryServiceClient(conns.router),
	})
	if err != nil {
		return err
	}
	d.resolver, err = resolver.New(o.Resolver, resolver.Deps{
		Log: log("resolver"), Metrics: tel.Metrics, Tracer: tel.Tracer, Registry: registryv1.NewRegistryServiceClient(conns.resolver),
	})
	if err != nil {
		return err
	}
	d.agent, err = nodeagent.New(o.NodeAgent, nodeagent.Deps{
		Log: log("nodeagent"), Metrics: tel.Metrics, Tracer: tel.Tracer,
		Registry: registryv1.NewRegistryServiceClient(conns.agent), Router: routerv1.NewRouterServiceClient(conns.agent),
		ResolverAddr: d.resolver.Addr,
	})
	if err != nil {
		return err
	}
	d.gateway, err = gateway.New(o.Gateway, gateway.Deps{
		Log: log("gateway"), Metrics: tel.Metrics, Gatherer: tel.Metrics, Tracer: tel.Tracer, TLS: o.TLS,
		Registry:  registryv1.NewRegistryServiceClient(conns.gateway),
		NodeAgent: nodeagentv1.NewNodeAgentServiceClient(conns.gateway),
		Router:    routerv1.NewRouterServiceClient(conns.gateway),
	})
	return err
}

// buildReload finds out what can change while the daemon runs.
func (d *daemon) buildReload(o *Options, tel *telemetry.Telemetry, services []service) (err error) {
	if o.Reload == nil {
		return nil
	}
	live := tel.Live()
	for _, s := range services {
		if r, ok := s.(interface{ Live() config.Live }); ok {
			maps.Copy(live, r.Live())
		}
	}
	d.reloader, err = config.NewReloader(config.ReloaderConfig{
		Log: tel.Log, Metrics: tel.Metrics, Running: o.flags, Live: live,
		Load: func() (*pflag.FlagSet, error) {
			again, err := o.Reload.Load()
			if err != nil {
				return nil, err
			}
			return again.flags, nil
		},
	})
	return err
}

// reload reloads the options at each SIGHUP until ctx ends.
func (d *daemon) reload(ctx context.Context, o *Options) error {
	if d.reloader != nil {
		return d.reloader.Run(ctx, o.Reload.Signals)
	}
	<-ctx.Done()
	return ctx.Err()
}

// stages says what runs, in the order in which it stops: what calls others before those that it calls.
func (d *daemon) stages(o *Options, tel *telemetry.Telemetry) [][]runner {
	return [][]runner{
		{{"readiness", func(ctx context.Context) error { return d.watchReadiness(ctx, o) }}, {"reload", func(ctx context.Context) error { return d.reload(ctx, o) }}, {"gateway", d.gateway.Run}, {"nodeagent", d.runAgent}},
		{{"router", d.router.Run}, {"resolver", d.resolver.Run}},
		{{"registry", d.registry.Run}},
		{{"grpc", func(ctx context.Context) error { return rpc.Serve(ctx, d.server, d.pipe, d.tcp) }}},
		{{"telemetry", tel.Run}},
	}
}

const (
	backendsWait  = 5 * time.Second      // at most, for routes and names at start
	backendsEvery = 5 * time.Millisecond // between looks at them
)

// runAgent takes over the programs' calls once there are routes and names: until then they wait, as they do while there
// is no daemon, rather than hear from the resolver that it doesn't know. Without a registry the agent has to do without.
func (d *daemon) runAgent(ctx context.Context) error {
	tick := time.NewTicker(backendsEvery)
	defer tick.Stop()
	late := time.After(backendsWait)
	for !d.router.Ready() || !d.resolver.Ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			d.log.Warn("the registry is not there yet: programs are served without routes and names", "waited", backendsWait)
			return d.agent.Run(ctx)
		case <-tick.C:
		}
	}
	return d.agent.Run(ctx)
}

// close releases what Run has not: connections, and all that a failed build leaves.
func (d *daemon) close() error {
	var errs []error
	for _, c := range d.conns {
		errs = append(errs, c.Close())
	}
	if d.tcp == nil && d.resolver != nil {
		errs = append(errs, d.resolver.Close())
	}
	if d.server != nil {
		d.server.Stop() // again, or for the first time
	}
	return errors.Join(errs...)
}
