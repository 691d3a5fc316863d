// Package dnsrelay carries the name lookups of applications to the resolver, so that none fails because the resolver, or
// this agent, was gone for a moment.
//
// Each application has a UDP socket of its own on the host's loopback, which outlives the agent: queries wait in it
// instead of being refused. What arrives there is passed to the resolver as it is, again and again while the resolver is
// refusing or silent; its answer is passed back as it is. Invariant: what a client is told comes from the resolver, now or,
// only while that knows nothing, at most MaxStale ago; whatever bytes arrive from either side, the relay goes on. Every
// query ends within Patience, and is answered unless there are more than MaxWaiting. Start reading at [Relay.Serve].
package dnsrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Limits of a relay. A query under way costs a goroutine and a socket.
const (
	MaxWaiting = 4096 // queries under way
	MaxPerApp  = 1024 // of one socket: an application that floods leaves room for the others
	readPause  = 50 * time.Millisecond
)

// Config says whom to ask.
type Config struct {
	Resolver func() netip.AddrPort // the present address; invalid while there is none
}

// Deps is what a relay works with.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Relay serves the sockets of any number of applications. They share what was learnt from the resolver.
type Relay struct {
	resolver func() netip.AddrPort
	dial     func(netip.AddrPort) (upstream, error)
	log      *slog.Logger
	metrics  *metrics
	cache    *cache
	waiting  chan struct{} // a slot for each query under way
	perApp   int
}

// New makes a relay, which does nothing until Serve is called.
func New(cfg Config, deps Deps) (*Relay, error) {
	if cfg.Resolver == nil || deps.Log == nil || deps.Metrics == nil {
		return nil, errors.New("dnsrelay: Resolver, Log and Metrics are required")
	}
	r := &Relay{
		resolver: cfg.Resolver, dial: dial, log: deps.Log, metrics: newMetrics(),
		waiting: make(chan struct{}, MaxWaiting), perApp: MaxPerApp,
	}
	r.cache = newCache(MaxEntries, MaxCacheBytes, r.metrics.evicted)
	if err := r.metrics.register(deps.Metrics, r.cache); err != nil {
		return nil, fmt.Errorf("dnsrelay: %w", err)
	}
	return r, nil
}

// Serve answers the queries that arrive at an application's socket until ctx ends, and then returns nil, or until the
// socket fails. It closes conn, which must be made from a duplicate if the socket is to live on: queries that arrive
// afterwards then wait in it.
func (r *Relay) Serve(ctx context.Context, conn *net.UDPConn) error {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	err := r.read(ctx, g, conn)
	cancel()
	_ = g.Wait() // queries have no error to tell
	_ = conn.Close()
	if outer.Err() != nil {
		return nil
	}
	return fmt.Errorf("read name lookups: %w", err)
}

// read takes queries from the socket until that is closed.
func (r *Relay) read(ctx context.Context, g *errgroup.Group, conn *net.UDPConn) error {
	buf := make([]byte, maxQuerySize+1)
	mine := make(chan struct{}, r.perApp)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			r.log.Warn("name lookup not received", "error", err)
			sleep(ctx, readPause)
			continue
		}
		q := parse(buf[:n])
		if q == nil || from.Port() == 0 {
			r.metrics.ignored.Inc()
			continue
		}
		if !r.admit(mine) {
			r.metrics.count(dropped)
			continue
		}
		g.Go(func() error {
			defer func() { <-mine; <-r.waiting }()
			e := exchange{relay: r, query: q, reply: func(b []byte) {
				if _, err := conn.WriteToUDPAddrPort(b, from); err != nil && ctx.Err() == nil {
					r.metrics.unsent.Inc()
				}
			}}
			e.run(ctx)
			return nil
		})
	}
}

// admit takes a slot of both bounds, or none.
func (r *Relay) admit(mine chan struct{}) bool {
	select {
	case mine <- struct{}{}:
	default:
		return false
	}
	select {
	case r.waiting <- struct{}{}:
		return true
	default:
		<-mine
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
