// Package flows tells whoever asks which connects the node's applications made and how they were decided.
//
// Invariant: Add never waits, whatever watchers do: each has a bounded channel, and what does not fit is counted and
// left out. Start reading at [Log.Add].
package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
)

// Limits of a log.
const (
	Kept        = 1024 // past flows that are kept
	MaxWatchers = 64   // watchers at once
	Buffer      = 1024 // flows that wait for one watcher; more are missed
)

// ErrTooManyWatchers says that MaxWatchers are subscribed.
var ErrTooManyWatchers = errors.New("too many watchers of flows: end one of them")

// Flow is one connect of an application, decided.
type Flow struct {
	Time    time.Time // zero: Add sets it
	App     ax.AppID
	Proto   ax.Protocol
	Dest    netip.AddrPort // as the application gave it, unmapped
	Verdict ax.Verdict
	Reason  ax.Reason
	Policy  string         // that decided, if one did
	Audit   string         // policy in audit mode that would have refused what was carried out, if one would
	Host    netip.AddrPort // real address connected to, if any
	Errno   syscall.Errno  // given to the application; 0 for success
	Retries int            // endpoints that refused before this one
	Name    string         // of the application; Add fills it in, and Labels, which are shared and immutable
	Labels  ax.Labels
}

// Filter selects flows. The zero Filter selects all that are still to come.
type Filter struct {
	App   ax.AppID         // only of this application, if not empty
	Match func(*Flow) bool // and only these, if not nil; it is called with the log locked, and must not wait
	Last  int              // so many of the past flows first, as far as they are kept
	Since time.Time        // the past flows since then first, if not zero; with Last at most so many of them
}

func (f Filter) match(flow *Flow) bool {
	return (f.App == "" || f.App == flow.App) && (f.Match == nil || f.Match(flow))
}

// past is how many past flows a watcher is to have first.
func (f Filter) past() int {
	if f.Last <= 0 && !f.Since.IsZero() {
		return Buffer
	}
	return min(f.Last, Buffer)
}

// Log keeps the last flows and hands every new one to the watchers. It is safe for concurrent use.
type Log struct {
	// mu guards everything below.
	mu       sync.Mutex
	metrics  *metrics
	ring     [Kept]Flow
	added    uint64 // flows ever added; the next goes to ring[added%Kept]
	watchers map[*watcher]struct{}

	identify func(ax.AppID) (name string, labels ax.Labels)
}

type watcher struct {
	filter Filter
	ch     chan Flow
	missed uint64 // since it was last asked; the log's lock guards it
}

// New makes an empty log.
func New(registerer prometheus.Registerer) (*Log, error) {
	l := &Log{metrics: newMetrics(), watchers: map[*watcher]struct{}{}}
	if err := l.metrics.register(registerer); err != nil {
		return nil, fmt.Errorf("flows: %w", err)
	}
	return l, nil
}

// Identify sets how the log finds out whose flow it records, while its application is still there to ask about. It is
// called before any flow is added.
func (l *Log) Identify(who func(ax.AppID) (name string, labels ax.Labels)) { l.identify = who }

// Add records a flow.
func (l *Log) Add(f Flow) {
	if f.Time.IsZero() {
		f.Time = time.Now()
	}
	if l.identify != nil {
		f.Name, f.Labels = l.identify(f.App)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics.count(&f)
	if f.Retries > 0 {
		l.metrics.retries.Add(float64(f.Retries))
	}
	l.ring[l.added%Kept] = f
	l.added++
	for w := range l.watchers {
		if !w.filter.match(&f) {
			continue
		}
		select {
		case w.ch <- f:
		default:
			w.missed++
			l.metrics.missed.Inc()
		}
	}
}

// Last returns the kept flows that the filter selects, oldest first; Filter.Last bounds them if it is above zero.
func (l *Log) Last(f Filter) []Flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := f.Last
	if limit <= 0 {
		limit = Kept
	}
	return l.last(f, limit)
}

func (l *Log) last(f Filter, limit int) []Flow {
	var newest []Flow // newest first
	for i := uint64(1); i <= min(l.added, Kept) && len(newest) < limit; i++ {
		if flow := &l.ring[(l.added-i)%Kept]; !flow.Time.Before(f.Since) && f.match(flow) {
			newest = append(newest, *flow)
		}
	}
	slices.Reverse(newest)
	return newest
}

// Subscribe returns a channel of the flows that the filter selects, without a gap between past and new ones, and a
// function that returns how many were left out since it was last called because the channel was full. The channel is
// closed when ctx ends.
func (l *Log) Subscribe(ctx context.Context, f Filter) (<-chan Flow, func() uint64, error) {
	w := &watcher{filter: f, ch: make(chan Flow, Buffer)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) >= MaxWatchers {
		return nil, nil, ErrTooManyWatchers
	}
	for _, flow := range l.last(f, f.past()) {
		w.ch <- flow
	}
	l.watchers[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, w)
		close(w.ch)
	})
	return w.ch, func() uint64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := w.missed
		w.missed = 0
		return n
	}, nil
}

// Watchers returns the number of subscriptions.
func (l *Log) Watchers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.watchers)
}
