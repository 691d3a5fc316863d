package dnssrv

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
)

// How other servers are asked. In all it takes less than the five seconds after which clients ask again.
const (
	MaxUpstreams   = 8
	maxAttempts    = 3
	attemptTimeout = 1500 * time.Millisecond
	minShun        = 5 * time.Second // a server that failed is asked last for so long
	maxShun        = time.Minute     // or, having failed again and again, for so long
)

// ForwardConfig says whom to ask.
type ForwardConfig struct {
	Upstreams func() []netip.AddrPort // in order of preference, at most MaxUpstreams count
	Cache     *Cache                  // what was learnt is kept there
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Tracer    opentracing.Tracer
}

// Forward answers with what another server says. Clients that ask the same at the same time share one exchange.
type Forward struct {
	cfg      ForwardConfig
	forwards *prometheus.CounterVec // outcome
	shared   prometheus.Counter

	mu      sync.Mutex // guards what follows
	flights map[key]*flight
	shunned map[netip.AddrPort]shun
}

// shun is the bad reputation of a server.
type shun struct {
	until time.Time
	last  time.Duration
}

// flight is an exchange under way. msg is set when done is closed, and never changed after.
type flight struct {
	done chan struct{}
	msg  *dns.Msg
}

// NewForward checks the configuration.
func NewForward(cfg ForwardConfig) (*Forward, error) {
	if cfg.Upstreams == nil || cfg.Cache == nil || cfg.Log == nil || cfg.Metrics == nil || cfg.Tracer == nil {
		return nil, errors.New("forward: Upstreams, Cache, Log, Metrics and Tracer are required")
	}
	f := &Forward{
		cfg: cfg, flights: map[key]*flight{}, shunned: map[netip.AddrPort]shun{},
		forwards: counters("forwards_total", "Exchanges with other servers.", "outcome"),
		shared:   counter("forwards_shared_total", "Queries that shared an exchange already under way."),
	}
	for _, o := range []string{"ok", "refused", "timeout", "error", "no-server"} {
		f.forwards.WithLabelValues(o)
	}
	return f, register(cfg.Metrics, f.forwards, f.shared)
}

// Name implements Handler.
func (*Forward) Name() string { return "forward" }

// Handle implements Handler.
func (f *Forward) Handle(ctx context.Context, q *Query) *dns.Msg {
	k := keyOf(q)
	f.mu.Lock()
	fl, joined := f.flights[k]
	if !joined {
		fl = &flight{done: make(chan struct{})}
		f.flights[k] = fl
	}
	f.mu.Unlock()
	if joined {
		f.shared.Inc()
		select {
		case <-fl.done:
		case <-ctx.Done():
		}
	} else {
		f.fly(ctx, k, q, fl)
	}
	if ctx.Err() != nil {
		return q.Reply(dns.RcodeServerFailure)
	}
	if fl.msg.Rcode == dns.RcodeServerFailure {
		q.Explain(dns.ExtendedErrorCodeNetworkError, "no forwarding server has an answer")
	}
	return forwarded(q, fl.msg, 0)
}

// fly makes the exchange for all who wait for it.
func (f *Forward) fly(ctx context.Context, k key, q *Query, fl *flight) {
	fl.msg = failure(q)
	defer func() {
		f.mu.Lock()
		delete(f.flights, k)
		f.mu.Unlock()
		close(fl.done)
	}()
	span := f.cfg.Tracer.StartSpan("dns.forward", opentracing.Tags{"dns.name": q.Name, "dns.type": dns.TypeToString[q.Type]})
	defer span.Finish()
	ask := question{Question: q.msg.Question[0], dnssec: q.DNSSEC(), cd: q.msg.CheckingDisabled}
	if m := f.try(ctx, ask); m != nil {
		fl.msg = m
	}
	span.SetTag("dns.rcode", dns.RcodeToString[fl.msg.Rcode])
	if ctx.Err() == nil {
		f.cfg.Cache.put(k, fl.msg)
	}
}

func failure(q *Query) *dns.Msg {
	return &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}, Question: q.msg.Question}
}

// try asks the servers in turn until one has an answer. With none, it returns the last refusal, or nil.
func (f *Forward) try(ctx context.Context, ask question) *dns.Msg {
	servers := f.servers()
	if len(servers) == 0 {
		f.forwards.WithLabelValues("no-server").Inc()
		return nil
	}
	var refusal *dns.Msg
	for i := range maxAttempts {
		server := servers[i%len(servers)]
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		m, err := exchange(attempt, server, ask)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		f.forwards.WithLabelValues(outcome(err)).Inc()
		f.judge(server, err)
		if err == nil {
			return received(m, ask)
		}
		f.cfg.Log.Debug("forwarding server failed", "server", server.String(), "name", ask.Name, "error", err)
		if m != nil {
			refusal = received(m, ask)
			if i+1 >= len(servers) {
				break // all have been asked, and one did say something
			}
		}
	}
	return refusal
}

// received makes a reply fit to be kept and passed on: without what is between us and the other server.
func received(m *dns.Msg, ask question) *dns.Msg {
	m.Question = []dns.Question{ask.Question}
	kept := m.Extra[:0]
	for _, rr := range m.Extra {
		switch rr.Header().Rrtype {
		case dns.TypeOPT, dns.TypeTSIG, dns.TypeSIG:
		default:
			kept = append(kept, rr)
		}
	}
	m.Extra = kept
	if m.Rcode > 0xF {
		m.Rcode = dns.RcodeServerFailure // an extended code needs an OPT record, which our client may not know
	}
	return m
}

// outcome labels an exchange.
func outcome(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errUnusable):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "error"
}

// servers returns the upstreams, those that failed lately last.
func (f *Forward) servers() []netip.AddrPort {
	all := f.cfg.Upstreams()
	all = all[:min(len(all), MaxUpstreams)]
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	good, bad := make([]netip.AddrPort, 0, len(all)), []netip.AddrPort(nil)
	for _, s := range all {
		if now.Before(f.shunned[s].until) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

// judge remembers servers that do not answer. One that answers with a refusal is alive: only this name is refused.
func (f *Forward) judge(s netip.AddrPort, err error) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || errors.Is(err, errUnusable) {
		delete(f.shunned, s)
		return
	}
	for other, sh := range f.shunned { // of servers no longer configured
		if now.Sub(sh.until) > maxShun {
			delete(f.shunned, other)
		}
	}
	d := min(max(minShun, 2*f.shunned[s].last), maxShun)
	f.shunned[s] = shun{until: now.Add(d), last: d}
}
