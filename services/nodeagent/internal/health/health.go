// Package health checks the endpoints of this node whose applications ask for it.
//
// Invariant: an endpoint is checked from the moment it is watched until it is forgotten, by one check at a time, and
// never because somebody else wants to know; what is told is changes. Start reading at [Checker.Run].
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
	"github.com/prometheus/client_golang/prometheus"
)

// Limits of a checker.
const (
	MaxTargets    = 4096 // endpoints that are checked; others stay unchecked, and are counted
	MaxConcurrent = 64   // checks at a time; further ones wait
	jitter        = 10   // one in so many parts of an interval is random, so that checks don't march in step
)

// Target is an endpoint to check.
type Target struct {
	ID      ax.EndpointID
	Check   ax.HealthCheck
	Service netip.AddrPort // virtual address, as its clients know it
	Host    netip.AddrPort // real address
}

// Deps is what a Checker works with. All are required.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Table   *socktab.Table
	// Changed is told of each new state; it must not wait.
	Changed func(ax.EndpointID, ax.Health)
}

// Checker checks endpoints. It is safe for concurrent use.
type Checker struct {
	deps    Deps
	slots   chan struct{} // held while checking
	changes *prometheus.CounterVec
	results *prometheus.CounterVec
	refused prometheus.Counter

	mu      sync.Mutex      // guards what follows
	ctx     context.Context //nolint:containedctx // Run's: what is watched later belongs to it, too
	wg      sync.WaitGroup
	targets map[ax.EndpointID]*watched
}

type watched struct {
	Target
	cancel context.CancelFunc // nil before Run
}

// New makes a checker; Run does the work.
func New(deps Deps) (*Checker, error) {
	c := &Checker{
		deps: deps, slots: make(chan struct{}, MaxConcurrent), targets: map[ax.EndpointID]*watched{},
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_health_changes_total", Help: "Changes of the health of this node's endpoints, by the new state.",
		}, []string{"state"}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_health_checks_total", Help: "Checks of this node's endpoints, by result.",
		}, []string{"result"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_health_unchecked_total", Help: "Endpoints that are not checked because there are too many.",
		}),
	}
	for _, state := range []string{"healthy", "unhealthy"} {
		c.changes.WithLabelValues(state)
	}
	for _, result := range []string{"ok", "failed"} {
		c.results.WithLabelValues(result)
	}
	targets := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_health_targets", Help: "Endpoints of this node that are checked.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.targets))
	})
	r := deps.Metrics
	if err := errors.Join(r.Register(c.changes), r.Register(c.results), r.Register(c.refused), r.Register(targets)); err != nil {
		return nil, fmt.Errorf("health: %w", err)
	}
	return c, nil
}

// Watch checks an endpoint from now on. One that is watched already, just so, goes on.
func (c *Checker) Watch(t Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.targets[t.ID]
	switch {
	case old != nil && old.Target == t:
		return
	case old != nil:
		c.drop(old)
	case len(c.targets) >= MaxTargets:
		c.refused.Inc()
		return
	}
	w := &watched{Target: t}
	c.targets[t.ID] = w
	if c.ctx != nil {
		c.start(w)
	}
}

// Forget checks an endpoint no more.
func (c *Checker) Forget(id ax.EndpointID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.targets[id]; w != nil {
		c.drop(w)
	}
}

// drop ends a watch. The caller holds mu.
func (c *Checker) drop(w *watched) {
	delete(c.targets, w.ID)
	if w.cancel != nil {
		w.cancel()
	}
}

// start begins to follow a target. The caller holds mu.
func (c *Checker) start(w *watched) {
	ctx, cancel := context.WithCancel(c.ctx)
	w.cancel = cancel
	c.wg.Go(func() {
		defer cancel()
		c.follow(ctx, w.Target)
	})
}

// Run checks until ctx ends.
func (c *Checker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	c.ctx = ctx
	for _, w := range c.targets {
		c.start(w)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil // nothing starts any more
	c.mu.Unlock()
	cancel()
	c.wg.Wait()
	return nil
}

// follow checks one target, at once and then at its interval.
func (c *Checker) follow(ctx context.Context, t Target) {
	state := tally{check: t.Check}
	for {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := c.probe(ctx, t)
		<-c.slots
		if ctx.Err() != nil {
			return
		}
		c.note(&state, t, err)
		part := t.Check.Interval / jitter
		select {
		case <-time.After(t.Check.Interval - part/2 + rand.N(part+1)):
		case <-ctx.Done():
			return
		}
	}
}

func (c *Checker) note(state *tally, t Target, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
		c.deps.Log.Debug("check has failed", "endpoint", t.ID, "check", t.Check.String(), "error", err)
	}
	c.results.WithLabelValues(result).Inc()
	h, changed := state.note(err)
	if !changed {
		return
	}
	name := "healthy"
	if h.State == ax.Unhealthy {
		name = "unhealthy"
	}
	c.changes.WithLabelValues(name).Inc()
	c.deps.Log.Info("health of endpoint", "endpoint", t.ID, "service", t.Service, "state", name, "reason", h.Reason, "check", t.Check.String())
	c.deps.Changed(t.ID, h)
}
