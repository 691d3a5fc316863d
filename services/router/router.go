// Package router turns the service table into routes and streams them to every node.
//
// It is stateless: any number of routers may run side by side, and one that loses the registry goes on serving what it
// knows. Its invariant is that nodes never learn less than what was true once: before the first complete list it says
// nothing. Start reading at [Service.Run]; the routes are made in internal/build and streamed by internal/server.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/router/internal/server"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
)

// Config is what a router can be told.
type Config struct {
	DNSDomain   string        // suffix of the names that Explain accepts; the resolver's
	SendTimeout time.Duration // a node that takes nothing for so long is cut off
	Confirm     time.Duration // with nothing to send, a node is told so often that its routes still hold
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{DNSDomain: "appswitch.local", SendTimeout: 15 * time.Second, Confirm: 5 * time.Second}
}

// Flags declares the options of the router.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.DNSDomain, "dns-domain", c.DNSDomain, "suffix that explain drops from names, as the resolver has it")
}

// Limits of the configuration.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = 10 * time.Minute
)

// Validate reports what is wrong with the configuration.
func (c *Config) Validate() error {
	var errs []error
	for name, d := range map[string]time.Duration{"SendTimeout": c.SendTimeout, "Confirm": c.Confirm} {
		if d < minTimeout || d > maxTimeout {
			errs = append(errs, fmt.Errorf("%s %s: want %s to %s", name, d, minTimeout, maxTimeout))
		}
	}
	return errors.Join(errs...)
}

// Deps is what a router works with. All of it is required, but Tracer: calls are traced by the server they come through.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Tracer   opentracing.Tracer
	Registry registryv1.RegistryServiceClient
}

// Service is a router.
type Service struct {
	server *server.Server
	watch  *watch.Watcher
}

// New makes a router; Run does the work.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if deps.Log == nil || deps.Metrics == nil || deps.Registry == nil {
		return nil, errors.New("router: Log, Metrics and Registry are required")
	}
	srv, err := server.New(server.Config{
		DNSDomain: cfg.DNSDomain, SendTimeout: cfg.SendTimeout, Confirm: cfg.Confirm, Log: deps.Log, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	w, err := watch.New(watch.Config{Service: "router", Client: deps.Registry, Handler: srv, Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	srv.MeasureAge(func() time.Duration { return max(0, time.Since(w.Status().LastContact)) })
	return &Service{server: srv, watch: w}, nil
}

// Register puts the router's gRPC service on a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	routerv1.RegisterRouterServiceServer(r, s.server)
}

// Ready reports whether the router has seen the whole service table.
func (s *Service) Ready() bool { return s.server.Ready() }

// Run follows the service table until ctx ends; then it ends all streams.
func (s *Service) Run(ctx context.Context) error {
	defer s.server.Stop()
	return s.watch.Run(ctx)
}
