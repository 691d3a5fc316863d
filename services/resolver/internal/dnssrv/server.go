package dnssrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Limits of a server.
const (
	MaxWaiting     = 4096             // queries that wait for the last handler
	MaxConns       = 1024             // TCP connections
	MaxPipelined   = 64               // waiting queries of one TCP connection
	IdleTimeout    = 10 * time.Second // of a TCP connection without a whole query
	WriteTimeout   = 5 * time.Second  // of a reply over TCP
	acceptInterval = 50 * time.Millisecond
)

// Config says what to serve, and where.
type Config struct {
	Listeners  []*Listener           // closed when Run returns
	Quick      []Handler             // asked in turn; they never wait
	Last       Handler               // asked when all others have passed; it may wait
	MayForward func(netip.Addr) bool // whose queries may be forwarded
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Server serves DNS.
type Server struct {
	cfg     Config
	metrics *metrics
	waiting chan struct{} // a slot for each query that waits for the last handler
	conns   chan struct{} // a slot for each TCP connection
	express express       // nil: no handler has a quick way
}

// New checks the configuration; Run does the work.
func New(cfg Config) (*Server, error) {
	if len(cfg.Quick) == 0 || cfg.Last == nil || cfg.MayForward == nil || cfg.Log == nil || cfg.Metrics == nil {
		return nil, errors.New("dnssrv: Quick, Last, MayForward, Log and Metrics are required")
	}
	s := &Server{cfg: cfg, waiting: make(chan struct{}, MaxWaiting), conns: make(chan struct{}, MaxConns)}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("dnssrv: %w", err)
	}
	s.metrics = m
	s.express, _ = cfg.Quick[0].(express) // what an earlier handler would answer, a later one must not
	return s, nil
}

// Run serves until ctx ends or a socket fails, and returns when every query and connection has ended.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.cfg.Listeners {
		// Two readers even on one processor: one may be busy with a long answer.
		for range max(2, runtime.GOMAXPROCS(0)) {
			g.Go(func() error { return s.readPackets(ctx, g, l) })
		}
		g.Go(func() error { return s.acceptConns(ctx, g, l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		for _, l := range s.cfg.Listeners {
			_ = l.Close() // may have been closed by its owner
		}
		return nil
	})
	return g.Wait()
}

// serve handles one packet. The reply is sent at once, from the caller's goroutine, or later from one of g.
func (s *Server) serve(ctx context.Context, g *errgroup.Group, p packet) {
	start := time.Now()
	q, reply := parse(p.data, p.transport)
	if q == nil {
		if reply == nil {
			s.metrics.dropped.Inc()
			p.done(nil)
			return
		}
		s.metrics.answered(p.transport, dns.TypeNone, reply.Rcode, "parse", start)
		p.done(s.pack(reply, p.out))
		return
	}
	q.From = p.from
	q.Recursion = s.cfg.MayForward(p.from)
	for _, h := range s.cfg.Quick {
		m := s.ask(ctx, h, q)
		if m == Silence {
			s.metrics.silenced.Inc()
			p.done(nil)
			return
		}
		if m != nil {
			s.metrics.answered(p.transport, q.Type, m.Rcode, h.Name(), start)
			p.done(s.pack(q.finish(m), p.out))
			return
		}
	}
	select {
	case s.waiting <- struct{}{}:
	default:
		s.metrics.overflow.WithLabelValues("waiting").Inc()
		q.Explain(dns.ExtendedErrorCodeOther, "too many queries are waiting")
		m := q.Reply(dns.RcodeServerFailure)
		s.metrics.answered(p.transport, q.Type, m.Rcode, "overflow", start)
		p.done(s.pack(q.finish(m), p.out))
		return
	}
	g.Go(func() error {
		defer func() { <-s.waiting }()
		m := s.ask(ctx, s.cfg.Last, q)
		if m == nil {
			m = q.Reply(dns.RcodeRefused)
		}
		s.metrics.answered(p.transport, q.Type, m.Rcode, s.cfg.Last.Name(), start)
		p.done(s.pack(q.finish(m), nil))
		return nil
	})
}

// ask lets a handler answer. Whatever it does with bytes from outside, it must not end the process that carries the
// node's network.
func (s *Server) ask(ctx context.Context, h Handler, q *Query) (m *dns.Msg) {
	defer func() {
		if r := recover(); r != nil {
			s.metrics.failures.Inc()
			s.cfg.Log.Error("query failed", "handler", h.Name(), "name", q.Name, "type", q.Type, "panic", r, "stack", string(debug.Stack()))
			m = q.Reply(dns.RcodeServerFailure)
		}
	}()
	return h.Handle(ctx, q)
}

// pack writes a reply, into buf if it fits; nil if that is impossible.
func (s *Server) pack(m *dns.Msg, buf []byte) []byte {
	b, err := m.PackBuffer(buf)
	if err == nil {
		return b
	}
	// A record from upstream that can be read but not written.
	s.metrics.failures.Inc()
	s.cfg.Log.Debug("reply can't be packed", "error", err)
	m.Rcode, m.Answer, m.Ns, m.Extra = dns.RcodeServerFailure, nil, nil, nil
	if b, err = m.PackBuffer(buf); err != nil {
		return nil
	}
	return b
}
