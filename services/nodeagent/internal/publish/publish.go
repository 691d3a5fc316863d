// Package publish keeps the registry's table equal to what this node runs.
//
// The callers only say what is desired: that never waits and never fails. Run writes the difference, at once and in
// order, under the node's lease, and all of it again under each new lease.
//
// Invariant: what may be in the table and is not desired is waiting to be deleted; what is desired is in the table
// under the present lease, or waiting to be written. One goroutine writes, and after a write whose outcome is unknown
// the lease is given up, so that a late write can't undo a newer one. Start reading at [Publisher.Run].
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/cenkalti/backoff/v5"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits of publishing.
const (
	MaxChanges     = 128                   // of one transaction
	DefaultTTL     = 10 * time.Second      // of the node's lease
	MinTTL         = 2 * time.Second       // the contract's least
	MaxTTL         = time.Hour             // the contract's most
	GrantTimeout   = 5 * time.Second       // for a lease to be granted
	WriteTimeout   = 5 * time.Second       // for one transaction
	ClaimTimeout   = 3 * time.Second       // for an address to be claimed
	RevokeTimeout  = time.Second           // for the lease to be revoked at the end
	MinBackoff     = 50 * time.Millisecond // first wait after a failure
	MaxBackoff     = time.Second           // longest wait
	jitter         = 0.5                   // half of a wait is random, so that nodes don't return at once
	impatient      = 2                     // renewals in a row that may take a sixth of the lease's life; others GrantTimeout
	healthySession = 2 * time.Second       // a session that lived this long starts the waits over
)

// Config says for which node to publish.
type Config struct {
	Node       ax.Node
	TTL        time.Duration // of the lease; 0 means DefaultTTL
	KeepOnExit bool          // leave lease and records behind: applications outlive the agent, and the next one takes over
}

// Deps is what a Publisher needs; all of it is required, but Tracer.
type Deps struct {
	Client  registryv1.RegistryServiceClient
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  opentracing.Tracer // traces what is published from here to the last node's routes; nil: none
}

// Publisher writes one node's records. It is safe for concurrent use.
type Publisher struct {
	cfg     Config
	deps    Deps
	metrics metrics
	wake    chan struct{} // holds one value while there may be something to write
	// unanswered counts the last renewals that had no answer; Run's sessions, one after the other, are its only users.
	unanswered int
	desired
}

// Stats is the state of a publisher at a moment.
type Stats struct {
	LeaseAlive bool // the node's lease is granted and has not expired
	Pending    int  // records that wait to be written or deleted
}

// New checks the configuration; Run does the work.
func New(cfg Config, deps Deps) (*Publisher, error) {
	if deps.Client == nil || deps.Log == nil || deps.Metrics == nil {
		return nil, errors.New("publish: Client, Log and Metrics are required")
	}
	if deps.Tracer == nil {
		deps.Tracer = opentracing.NoopTracer{}
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.TTL < MinTTL || cfg.TTL > MaxTTL {
		return nil, fmt.Errorf("publish: lease of %s: want %s to %s", cfg.TTL, MinTTL, MaxTTL)
	}
	if _, err := axpb.NodeFrom(axpb.Node(cfg.Node)); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	p := &Publisher{cfg: cfg, deps: deps, wake: make(chan struct{}, 1), desired: newDesired()}
	p.node = cfg.Node
	if err := p.metrics.register(deps.Metrics, p.Stats); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return p, nil
}

// PutApp wants an application in the table.
func (p *Publisher) PutApp(a ax.App) { p.want(appKey(a.ID), a) }

// DropApp wants an application out of the table.
func (p *Publisher) DropApp(id ax.AppID) { p.unwant(appKey(id)) }

// PutEndpoint wants an endpoint in the table. A trace begins here: it is called when an application listens.
func (p *Publisher) PutEndpoint(e ax.Endpoint) {
	p.mu.Lock()
	changed := p.put(endpointKey(e.ID), e)
	if changed {
		p.begin(endpointKey(e.ID), e, p.deps.Tracer)
	}
	p.mu.Unlock()
	if changed {
		p.signal()
	}
}

// UpdateEndpoint wants an endpoint that was put to be another one in the table.
func (p *Publisher) UpdateEndpoint(e ax.Endpoint) { p.want(endpointKey(e.ID), e) }

// DropEndpoint wants an endpoint out of the table.
func (p *Publisher) DropEndpoint(id ax.EndpointID) { p.unwant(endpointKey(id)) }

// Node returns the node as it should be in the table.
func (p *Publisher) Node() ax.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.node
}

// Relabel gives the node other labels. They are published like everything else, and under each new lease.
func (p *Publisher) Relabel(labels ax.Labels) error {
	if err := labels.Validate(); err != nil {
		return fmt.Errorf("node labels: %w", err)
	}
	p.mu.Lock()
	p.node.Labels = labels
	node := p.node
	p.mu.Unlock()
	p.want(nodeKey(node.Name), node)
	return nil
}

// SetDraining says whether the node is being drained. It is published as labels are.
func (p *Publisher) SetDraining(draining bool) {
	p.mu.Lock()
	if p.node.Draining == draining {
		p.mu.Unlock()
		return
	}
	p.node.Draining = draining
	node := p.node
	p.mu.Unlock()
	p.want(nodeKey(node.Name), node)
}

// Restored says that everything that outlived a restart of the agent has been put again. Only from then on are records
// deleted that an earlier run has left in the table: deleted sooner, they would be missing until put again.
func (p *Publisher) Restored() {
	p.mu.Lock()
	p.restored = true
	for k := range p.sent {
		if _, ok := p.values[k]; !ok {
			p.enqueue(k)
		}
	}
	p.mu.Unlock()
	p.signal()
}

// Stats returns the present state.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{LeaseAlive: p.lease != 0 && time.Now().Before(p.expiry), Pending: p.pending()}
}

func (p *Publisher) want(k key, value any) {
	p.mu.Lock()
	changed := p.put(k, value)
	p.mu.Unlock()
	if changed {
		p.signal()
	}
}

func (p *Publisher) unwant(k key) {
	p.mu.Lock()
	changed := p.drop(k)
	p.mu.Unlock()
	if changed {
		p.signal()
	}
}

// signal wakes the writer.
func (p *Publisher) signal() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Run publishes until ctx ends, reconnecting for as long as it takes, and then returns nil. It then revokes the lease,
// unless the records are to be kept.
func (p *Publisher) Run(ctx context.Context) error {
	wait := &backoff.ExponentialBackOff{InitialInterval: MinBackoff, MaxInterval: MaxBackoff, Multiplier: 2, RandomizationFactor: jitter}
	wait.Reset()
	told := codes.OK
	for {
		start := time.Now()
		err := p.session(ctx)
		if ctx.Err() != nil {
			p.leave()
			return nil //nolint:nilerr // the session broke because Run was to end
		}
		if time.Since(start) >= healthySession {
			wait.Reset()
			told = codes.OK
		}
		if code := status.Code(err); code != told {
			told = code
			p.deps.Log.Warn("records can't be published now, they wait", "error", err, "pending", p.Stats().Pending)
		}
		p.metrics.sessions.Inc()
		select {
		case <-ctx.Done():
			p.leave()
			return nil
		case <-time.After(min(wait.NextBackOff(), MaxBackoff)):
		}
	}
}
