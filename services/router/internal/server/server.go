// Package server serves routes: it follows the service table, keeps one snapshot, and streams it to every node.
//
// Invariant: what a node was sent, applied in order, is a snapshot that this server once had, never an empty one that
// stands for "nothing known yet"; and what it costs to serve a slow node does not grow with the changes it misses,
// because a stream remembers only the (immutable, shared) snapshot that it sent last. Start reading at
// [Server.WatchRoutes].
package server

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/watch"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/router/internal/build"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// MaxWatchers bounds the streams of routes; further nodes are refused and try another router.
const MaxWatchers = 8192

// Config says how routes are served.
type Config struct {
	DNSDomain   string        // suffix that Explain drops from names
	SendTimeout time.Duration // a node that takes nothing for so long is cut off
	Confirm     time.Duration // with nothing to send, a node is told so often that what it has still holds
	Log         *slog.Logger
	Metrics     prometheus.Registerer
}

// Server implements the router's gRPC service and the handler of its watch. It has no goroutines but those of calls.
type Server struct {
	routerv1.UnimplementedRouterServiceServer
	cfg      Config
	metrics  *metrics
	decider  *route.Decider
	age      func() time.Duration // since the registry was last heard of
	stopped  chan struct{}        // closed when the service stops: streams end
	stop     sync.Once
	watchers atomic.Int64
	current  atomic.Pointer[edition]

	mu      sync.RWMutex // guards builder; its only writer is the watch
	builder *build.Builder
}

// edition is one state of the routes.
type edition struct {
	number   uint64
	snapshot *route.Snapshot // nil before the first complete list
	from     *route.Snapshot // the one before; nil for the first
	delta    func() []*routerv1.WatchRoutesResponse
	traces   []string      // in which what is new was made
	replaced chan struct{} // closed when there is a newer one
}

// New returns a server that knows nothing yet.
func New(cfg Config) (*Server, error) {
	s := &Server{
		cfg: cfg, decider: route.NewDecider(route.Config{}), builder: build.New(), stopped: make(chan struct{}),
		age: func() time.Duration { return 0 },
	}
	s.current.Store(&edition{replaced: make(chan struct{})})
	var err error
	s.metrics, err = newMetrics(cfg.Metrics, s)
	return s, err
}

// MeasureAge sets how the server finds out since when the registry has been silent. It is called before serving.
func (s *Server) MeasureAge(age func() time.Duration) { s.age = age }

// Stop ends all streams of routes.
func (s *Server) Stop() { s.stop.Do(func() { close(s.stopped) }) }

// Ready reports whether the first complete list has come.
func (s *Server) Ready() bool { return s.current.Load().snapshot != nil }

// Replace implements [watch.Handler].
func (s *Server) Replace(t *watch.Table) {
	s.mu.Lock()
	delta := s.builder.Replace(t)
	s.mu.Unlock()
	s.publish(delta, nil)
}

// Apply implements [watch.Handler].
func (s *Server) Apply(e watch.Event) {
	s.mu.Lock()
	delta := s.builder.Apply(e)
	s.mu.Unlock()
	s.publish(delta, e.Traces)
}

// publish makes the next edition and wakes the streams. The delta's messages are made once, by the first stream that
// needs them, for all streams that are up to date.
func (s *Server) publish(d route.Delta, traces []string) {
	start := time.Now()
	was := s.current.Load()
	base := was.snapshot
	if base == nil {
		base = route.Empty()
	}
	next := &edition{number: was.number + 1, snapshot: base.Apply(d), from: was.snapshot, traces: traces, replaced: make(chan struct{})}
	next.delta = sync.OnceValue(func() []*routerv1.WatchRoutesResponse {
		var out []*routerv1.WatchRoutesResponse
		for m := range axpb.Routes(d) {
			out = append(out, m)
		}
		out[len(out)-1].TraceParents = traces // the one that puts the delta into effect
		return out
	})
	s.current.Store(next)
	close(was.replaced)
	s.metrics.apply.Observe(time.Since(start).Seconds())
	if was.snapshot == nil {
		size := next.snapshot.Size()
		s.cfg.Log.Info("routes are complete", "revision", int64(d.Revision), "services", size.Services, "nodes", size.Nodes)
	}
}

// snapshot returns the routes, or UNAVAILABLE before there are any.
func (s *Server) snapshot() (*route.Snapshot, error) {
	if e := s.current.Load(); e.snapshot != nil {
		return e.snapshot, nil
	}
	return nil, rpc.Errorf(codes.Unavailable, "the router has not seen the service table yet").
		WithFix("try again; if it lasts, check that the registry can be reached")
}
