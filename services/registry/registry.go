// Package registry keeps the service table: who runs where, and at which address.
//
// It is the only writer of the table, which lives in etcd: in a server of its own inside this process, or in a cluster
// that exists already. Invariant: every change is one transaction in etcd, its revision is the table's clock, and a
// registry has no state beyond a copy that it can make again at any time; so any number of them may run side by side
// in front of one etcd cluster. Start reading at [New]; what calls do is in internal/server, how records are kept in
// internal/store.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/server"
	"appswitch.io/services/registry/internal/store/etcdstore"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// Deps is what the service works with. Tracer may be nil.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  opentracing.Tracer
}

// Service is the registry.
type Service struct {
	store  *etcdstore.Store
	server *server.Server
}

// New builds the service and starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.Metrics == nil {
		return nil, errors.New("registry: Log and Metrics are required")
	}
	log := deps.Log.With("service", "registry")
	st, err := etcdstore.New(etcdstore.Config{
		Endpoints: cfg.EtcdEndpoints, Dir: cfg.StateDir,
		Listen: cfg.EtcdListen, ClientPort: cfg.EtcdClientPort, PeerPort: cfg.EtcdPeerPort,
		UnsafeNoFsync: cfg.EtcdUnsafeNoFsync, Log: log,
	})
	if err != nil {
		return nil, err
	}
	srv, err := server.New(server.Config{
		Store: st, Pool: cfg.IPPool, ClaimTTL: cfg.ClaimTTL, LeaseTTL: cfg.LeaseTTL,
		Log: log, Metrics: deps.Metrics, Tracer: deps.Tracer,
	})
	if err != nil {
		return nil, err
	}
	return &Service{store: st, server: srv}, nil
}

// Register puts the RegistryService on a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	registryv1.RegisterRegistryServiceServer(r, s.server)
}

// Ready reports whether the table has been read from etcd once.
func (s *Service) Ready() bool { return s.server.Ready() }

// Run keeps the table until ctx ends. It fails only if the embedded etcd can't run; an external one may be away for
// any time.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := s.store.Run(ctx); err != nil {
			return fmt.Errorf("registry: %w", err)
		}
		return nil
	})
	g.Go(func() error { return s.server.Run(ctx) })
	return g.Wait()
}
