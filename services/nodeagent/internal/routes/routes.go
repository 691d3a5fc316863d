// Package routes keeps the node's snapshot of routes as the router streams it.
//
// Invariant: once there is a snapshot there always is one: it stays while the router is away, and a new one takes its
// place only when it is complete. Readers take no lock. Start reading at [Watcher.Run].
package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	"appswitch.io/internal/trace"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"github.com/cenkalti/backoff/v5"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// Times of a watcher.
const (
	IdleTimeout   = 30 * time.Second      // without a message (the router confirms every few seconds) the stream is opened anew
	FreshAge      = 20 * time.Second      // what is no older counts as current: heartbeats of registry and router come every 10 s and 5 s
	MinBackoff    = 50 * time.Millisecond // first wait before the stream is opened anew
	MaxBackoff    = time.Second           // longest wait
	jitter        = 0.5                   // half of a wait is random, so that nodes don't return at once
	healthyStream = 2 * time.Second       // a stream that lived this long starts the waits over
)

// Deps is what a Watcher needs; all of it is required, but Tracer.
type Deps struct {
	Client  routerv1.RouterServiceClient
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  opentracing.Tracer // continues the traces of changes; nil: none
}

// Watcher follows the routes of one node.
type Watcher struct {
	deps    Deps
	node    ax.NodeName
	metrics metrics
	ready   chan struct{} // closed with the first snapshot

	snapshot atomic.Pointer[route.Snapshot]

	// mu guards everything below, and the replacement of snapshot.
	mu        sync.Mutex
	connected bool
	trueAt    time.Time // when the routes were last known to be true; the start of Run if they never were
	suspects  []ax.NodeName
}

// New makes a watcher; Run does the work.
func New(deps Deps, node ax.NodeName) (*Watcher, error) {
	if deps.Client == nil || deps.Log == nil || deps.Metrics == nil || node == "" {
		return nil, errors.New("routes: Client, Log, Metrics and the node's name are required")
	}
	w := &Watcher{deps: deps, node: node, ready: make(chan struct{})}
	if err := w.metrics.register(deps.Metrics, w); err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	return w, nil
}

// Snapshot returns the routes as last known; nil until they have arrived for the first time.
func (w *Watcher) Snapshot() *route.Snapshot { return w.snapshot.Load() }

// Ready is closed when the first snapshot has arrived.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Connected reports whether the stream of routes is up: the snapshot is then the router's own.
func (w *Watcher) Connected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.connected
}

// Age returns the time since the routes were last known to be true: since the router was last in contact, and it with
// the registry. While everything is in contact it is 0.
func (w *Watcher) Age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trueAt.IsZero() {
		return 0
	}
	age := time.Since(w.trueAt)
	if w.connected && age <= FreshAge {
		return 0
	}
	return age
}

// Suspect says which nodes gossip holds for failed, in place of those named before: present and future snapshots
// prefer the endpoints of others.
func (w *Watcher) Suspect(nodes ...ax.NodeName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.suspects = nodes
	if s := w.snapshot.Load(); s != nil {
		w.snapshot.Store(s.Suspect(nodes...))
	}
}

// Run follows the routes until ctx ends, reconnecting for as long as it takes, and then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	w.mu.Lock()
	w.trueAt = time.Now()
	w.mu.Unlock()
	wait := &backoff.ExponentialBackOff{InitialInterval: MinBackoff, MaxInterval: MaxBackoff, Multiplier: 2, RandomizationFactor: jitter}
	wait.Reset()
	for {
		start := time.Now()
		err := w.stream(ctx)
		was := w.disconnected()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the stream broke because Run was to end
		}
		if was {
			w.deps.Log.Warn("stream of routes broke, the last ones are kept", "error", err)
		} else {
			w.deps.Log.Debug("stream of routes not established", "error", err)
		}
		if time.Since(start) >= healthyStream {
			wait.Reset()
		}
		w.metrics.reconnects.Inc()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(wait.NextBackOff(), MaxBackoff)):
		}
	}
}

// stream opens one stream and follows it until it breaks.
func (w *Watcher) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := w.deps.Client.WatchRoutes(ctx, &routerv1.WatchRoutesRequest{Node: string(w.node)}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	idle := time.AfterFunc(IdleTimeout, func() { cancel(fmt.Errorf("no word from the router in %s", IdleTimeout)) })
	defer idle.Stop()
	var reader axpb.RoutesReader
	for {
		resp, err := stream.Recv()
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		idle.Reset(IdleTimeout)
		delta, complete, err := reader.Read(resp)
		if err != nil {
			return fmt.Errorf("message refused: %w", err)
		}
		if complete {
			spans := trace.Continue(w.deps.Tracer, "nodeagent apply", resp.GetTraceParents(), opentracing.Tags{
				"node": string(w.node), "revision": int64(delta.Revision),
			})
			w.apply(delta, time.Now().Add(-max(resp.GetAge().AsDuration(), 0)))
			spans.Finish()
		}
	}
}

// apply takes the snapshot to where a delta leads; trueAt is when the router last knew that to be true.
func (w *Watcher) apply(d route.Delta, trueAt time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.snapshot.Load()
	next := last
	switch {
	case last == nil:
		next = route.Empty().Suspect(w.suspects...).Apply(d)
	case !d.Empty() || d.Revision != last.Revision():
		next = last.Apply(d)
	}
	w.snapshot.Store(next)
	w.trueAt = trueAt
	if !w.connected {
		w.connected = true
		w.deps.Log.Info("routes are current", "revision", int64(next.Revision()), "services", next.Size().Services, "nodes", next.Size().Nodes)
	}
	if last == nil {
		close(w.ready)
	}
}

// disconnected reports whether there was a connection.
func (w *Watcher) disconnected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.connected
	if was && time.Since(w.trueAt) <= FreshAge {
		w.trueAt = time.Now()
	}
	w.connected = false
	return was
}
