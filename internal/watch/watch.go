// Package watch follows the service table: list, then changes, resumed by revision after every break.
//
// A [Watcher] keeps one Watch stream to the registry open and hands typed, validated values to a [Handler]: a whole
// [Table] first and after each gap that can't be resumed, an [Event] for each revision otherwise. Calls to the handler
// never overlap and come from Run's goroutine; a handler that is slower than the table gets its stream cut off by the
// registry, and resumes. Invariant: what the handler was told, applied in order, is the table at the last revision it
// was told; nothing is told while the registry is away, and the handler keeps what it has. Start reading at
// [Watcher.Run].
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/trace"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/cenkalti/backoff/v5"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// Limits of a watcher.
const (
	MaxRecords    = 1 << 20               // records of one list; a longer one is refused
	IdleTimeout   = 30 * time.Second      // without a message (the registry sends a heartbeat) the stream is opened anew
	MinBackoff    = 50 * time.Millisecond // first wait before reconnecting
	MaxBackoff    = 5 * time.Second       // longest wait before reconnecting
	healthyStream = 2 * time.Second       // a stream that lived this long starts the waits over
	backoffJitter = 0.5                   // half of a wait is random, so that watchers don't return at once
)

// Handler learns what the table is. It must not block for long.
type Handler interface {
	// Replace says that the table is now t, whatever was said before. The handler owns t.
	Replace(t *Table)
	// Apply says what changed at one revision.
	Apply(e Event)
}

// Config says what to watch, and for whom.
type Config struct {
	Service string                           // name of the watching service, for metrics: "router"; required
	Client  registryv1.RegistryServiceClient // required
	Kinds   []registryv1.Kind                // kinds wanted; none means all
	Handler Handler                          // required
	Log     *slog.Logger                     // required
	Metrics prometheus.Registerer            // required
	Tracer  opentracing.Tracer               // continues the traces of changes; nil: none
}

// Status is the state of a watcher at a moment.
type Status struct {
	Connected   bool        // the stream is open and has delivered
	Synced      bool        // the handler has been given a table at least once
	Revision    ax.Revision // last revision given to the handler
	TableID     string      // the table it belongs to
	LastContact time.Time   // when the registry was last heard of; zero if never
}

// Watcher follows the table for one handler.
type Watcher struct {
	cfg     Config
	metrics metrics
	synced  chan struct{} // closed at the first Replace

	mu     sync.Mutex // guards status
	status Status

	pending *Table // list being received, owned by Run's goroutine
}

// New checks the configuration; Run does the work.
func New(cfg Config) (*Watcher, error) {
	if cfg.Service == "" || cfg.Client == nil || cfg.Handler == nil || cfg.Log == nil || cfg.Metrics == nil {
		return nil, errors.New("watch: Service, Client, Handler, Log and Metrics are required")
	}
	w := &Watcher{cfg: cfg, synced: make(chan struct{})}
	if err := w.metrics.register(cfg.Service, cfg.Metrics, w.Status); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	return w, nil
}

// Status returns the present state.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Synced is closed once the handler has been given a table.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Run watches until ctx ends, reconnecting for as long as it takes, and then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	wait := &backoff.ExponentialBackOff{InitialInterval: MinBackoff, MaxInterval: MaxBackoff, Multiplier: 2, RandomizationFactor: backoffJitter}
	wait.Reset()
	for {
		start := time.Now()
		err := w.stream(ctx)
		if ctx.Err() != nil {
			w.disconnected()
			return nil //nolint:nilerr // it broke because it was to end
		}
		if w.disconnected() {
			w.cfg.Log.Warn("watch of the service table broke, what was known is kept", "error", err)
		} else {
			w.cfg.Log.Debug("watch of the service table not established", "error", err)
		}
		if time.Since(start) >= healthyStream {
			wait.Reset()
		}
		w.metrics.reconnects.Inc()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// stream opens one stream and follows it until it breaks.
func (w *Watcher) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(IdleTimeout, func() { cancel(fmt.Errorf("no word from the registry in %s", IdleTimeout)) })
	defer idle.Stop()

	w.pending = nil
	status := w.Status()
	stream, err := w.cfg.Client.Watch(ctx, &registryv1.WatchRequest{
		Kinds: w.cfg.Kinds, Revision: int64(status.Revision), TableId: status.TableID,
	}, grpc.WaitForReady(true))
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		idle.Reset(IdleTimeout)
		if err := w.receive(resp); err != nil {
			w.forget()
			return err
		}
	}
}

// receive handles one batch. An error means that the registry broke its contract: the stream starts over with a list.
func (w *Watcher) receive(resp *registryv1.WatchResponse) error {
	w.contact()
	if resp.GetList() {
		return w.receiveList(resp)
	}
	status := w.Status()
	switch {
	case w.pending != nil:
		return errors.New("a list was interrupted by a change")
	case !status.Synced || resp.GetTableId() != status.TableID:
		return fmt.Errorf("changes of table %q without its list", resp.GetTableId())
	case ax.Revision(resp.GetRevision()) < status.Revision:
		return fmt.Errorf("revision %d after %d", resp.GetRevision(), status.Revision)
	}
	event := Event{Revision: ax.Revision(resp.GetRevision()), Changes: w.changes(resp.GetChanges())}
	if len(event.Changes) > 0 {
		w.apply(event)
	}
	w.reached(resp.GetTableId(), event.Revision)
	return nil
}

// apply hands an event over, in a span of each trace that it belongs to: what the handler makes of it continues them.
func (w *Watcher) apply(e Event) {
	spans := trace.Continue(w.cfg.Tracer, w.cfg.Service+" apply", tracesOf(e.Changes), opentracing.Tags{"revision": int64(e.Revision)})
	defer spans.Finish()
	e.Traces = spans.Parents()
	w.cfg.Handler.Apply(e)
}

// tracesOf returns the traces of changes, each once.
func tracesOf(changes []Change) []string {
	var out []string
	for _, c := range changes {
		if c.Trace != "" && len(out) < trace.MaxParents && !slices.Contains(out, c.Trace) {
			out = append(out, c.Trace)
		}
	}
	return out
}

func (w *Watcher) receiveList(resp *registryv1.WatchResponse) error {
	if w.pending == nil {
		w.pending = NewTable()
	}
	if w.pending.Len()+len(resp.GetChanges()) > MaxRecords {
		return fmt.Errorf("list of more than %d records", MaxRecords)
	}
	w.pending.Apply(Event{Revision: ax.Revision(resp.GetRevision()), Changes: w.changes(resp.GetChanges())})
	if !resp.GetComplete() {
		return nil
	}
	t := w.pending
	w.pending = nil
	w.cfg.Handler.Replace(t)
	w.reached(resp.GetTableId(), ax.Revision(resp.GetRevision()))
	return nil
}

func (w *Watcher) changes(in []*registryv1.Change) []Change {
	out := make([]Change, 0, len(in))
	for _, p := range in {
		c, err := changeFrom(p)
		if err != nil {
			w.metrics.invalid.Inc()
			w.cfg.Log.Warn("record of the service table ignored", "kind", c.Kind.String(), "key", c.Key, "error", err)
		}
		if c.Kind != registryv1.Kind_KIND_UNSPECIFIED {
			out = append(out, c)
		}
	}
	return out
}

func (w *Watcher) contact() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Connected, w.status.LastContact = true, time.Now()
}

// disconnected reports whether there was a connection.
func (w *Watcher) disconnected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.status.Connected
	w.status.Connected = false
	return was
}

func (w *Watcher) reached(tableID string, r ax.Revision) {
	w.mu.Lock()
	first := !w.status.Synced
	w.status.Synced, w.status.TableID, w.status.Revision = true, tableID, r
	w.mu.Unlock()
	if first {
		close(w.synced)
	}
}

// forget makes the next stream start with a list; the handler keeps what it has until then.
func (w *Watcher) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Revision = 0
}
