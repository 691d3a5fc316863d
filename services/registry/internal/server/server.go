// Package server is the registry's gRPC service: it writes the service table to the store, keeps one copy of it in
// memory, and feeds every watcher from that copy.
//
// Invariant: the copy is the table at one revision of the store; it moves only forward, one whole transaction at a
// time, and a watcher is told every transaction once, in order. Reads and conditions that must not be out of date go
// to the store; watching never does. Start reading at [Server.Watch] and table.go for what goes out, write.go for
// what comes in, sync.go for what connects the two.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
)

// Limits of the server.
const (
	MaxChanges    = store.MaxOps     // changes of a Write
	MaxWatchers   = 16384            // watches open at once
	QueueLength   = 1024             // revisions that wait for a watcher before it is cut off
	MaxHistory    = 4096             // revisions kept for watchers that resume
	MaxHistoryOps = 65536            // changes in them, all together
	BatchChanges  = 512              // changes in a message to a watcher
	BatchBytes    = 1 << 20          // bytes in such a message, unless a single change has more
	Heartbeat     = 10 * time.Second // a watcher to whom nothing was sent for so long gets an empty batch
	syncPatience  = 2 * time.Second  // how long a call waits for the first copy of the table, and a watcher for its revision
	maxAttempts   = 64               // of a transaction whose conditions others keep breaking
	minTTL        = 2 * time.Second  // of a lease
	maxTTL        = time.Hour        // of a lease
)

// Config is what a server works with. All fields are required but Tracer.
type Config struct {
	Store    store.Store
	Pool     netip.Prefix  // from which addresses are made up for names
	ClaimTTL time.Duration // of an address that nothing holds any more
	LeaseTTL time.Duration // of a node that asked for none in particular
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Tracer   opentracing.Tracer
}

// Server implements RegistryService.
type Server struct {
	registryv1.UnimplementedRegistryServiceServer

	cfg     Config
	pool    pool
	table   *table
	metrics *metrics
}

// New returns a server; Run does its work in the background.
func New(cfg Config) (*Server, error) {
	pool, err := newPool(cfg.Pool)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	if cfg.Tracer == nil {
		cfg.Tracer = opentracing.NoopTracer{}
	}
	s := &Server{cfg: cfg, pool: pool, table: newTable(m), metrics: m}
	behind := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "appswitch", Subsystem: "registry", Name: "watch_lag_revisions",
		Help: "Revisions that wait for the watcher that is furthest behind; at the length of its queue it is cut off.",
	}, func() float64 { return float64(s.table.lag()) })
	if err := cfg.Metrics.Register(behind); err != nil {
		return nil, fmt.Errorf("registry metrics: %w", err)
	}
	return s, nil
}

// Run keeps the copy of the table and sweeps the claims until ctx ends; then it returns nil.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.sync(ctx) })
	g.Go(func() error { return s.sweep(ctx) })
	return g.Wait()
}

// Ready reports whether there is a copy of the table: then watchers can be served, also while the store is away.
func (s *Server) Ready() bool {
	id, _ := s.table.at()
	return id != ""
}

// asRPC gives what the store says the code that the contract promises.
func asRPC(err error) error {
	if own := (*rpc.Error)(nil); err == nil || errors.As(err, &own) {
		return err
	}
	for _, m := range []struct {
		is   error
		code codes.Code
		fix  string
	}{
		{store.ErrUnavailable, codes.Unavailable, "the call may be repeated"},
		{store.ErrConflict, codes.Aborted, "others were faster; the call may be repeated"},
		{store.ErrNoLease, codes.FailedPrecondition, "grant another lease and write everything again"},
		{store.ErrTooLarge, codes.InvalidArgument, "write less at a time"},
		{store.ErrFull, codes.ResourceExhausted, "the operator of etcd has to act"},
		{store.ErrCompacted, codes.Unavailable, "the call may be repeated"},
	} {
		if errors.Is(err, m.is) {
			return rpc.Errorf(m.code, "%w", err).WithFix("%s", m.fix)
		}
	}
	return err
}

// commit writes a transaction for a caller and traces it.
func (s *Server) commit(ctx context.Context, what string, txn store.Txn) (ax.Revision, error) {
	if parent := opentracing.SpanFromContext(ctx); parent != nil {
		span := s.cfg.Tracer.StartSpan("etcd "+what, opentracing.ChildOf(parent.Context()))
		span.SetTag("operations", len(txn.Ops))
		defer span.Finish()
		ctx = opentracing.ContextWithSpan(ctx, span)
	}
	start := time.Now()
	revision, err := s.cfg.Store.Write(ctx, txn)
	s.metrics.writeTime.Observe(time.Since(start).Seconds())
	if err == nil {
		s.metrics.writes.Inc()
	}
	return revision, err
}
