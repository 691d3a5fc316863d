package route

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"appswitch.io/internal/ax"
)

// MaxOutliers bounds the endpoints whose failures are remembered. Beyond it, the one that failed longest ago is
// forgotten for each that comes.
const MaxOutliers = 4096

// OutlierConfig says when an endpoint to which connects fail is left out, and for how long.
type OutlierConfig struct {
	Failures int           // in a row that eject an endpoint; 0: none is ejected
	Base     time.Duration // of the first ejection; each further one takes twice as long, a tenth of it at random
	Max      time.Duration // the longest ejection
	Share    int           // of the endpoints that a client may choose from, in percent, that is left out at most
}

// DefaultOutlierConfig returns the defaults.
func DefaultOutlierConfig() OutlierConfig {
	return OutlierConfig{Failures: 3, Base: 10 * time.Second, Max: 5 * time.Minute, Share: 50}
}

// Validate reports the first value that makes no sense.
func (c OutlierConfig) Validate() error {
	switch {
	case c.Failures < 0 || c.Failures > 1000:
		return fmt.Errorf("failures %d: want 1 to 1000, or 0 to eject no endpoint", c.Failures)
	case c.Base < time.Millisecond:
		return fmt.Errorf("base-time %s: want 1ms or more", c.Base)
	case c.Max < c.Base:
		return fmt.Errorf("max-time %s: want the base time, %s, or more", c.Max, c.Base)
	case c.Max > 24*time.Hour:
		return errors.New("max-time: want at most 24h")
	case c.Share < 0 || c.Share > 100:
		return fmt.Errorf("max-share %d: want 0 to 100 percent", c.Share)
	}
	return nil
}

// Ejection is an endpoint to which connects have failed.
type Ejection struct {
	Proto     ax.Protocol
	Host      netip.AddrPort
	Failures  int       // in a row
	Ejections int       // in a row
	Until     time.Time // when it is used again; in the past, or zero, if it is not left out
}

// outlier is what is known of an endpoint whose last connect has failed.
type outlier struct {
	until atomic.Int64 // Unix time in nanoseconds until when it is left out

	// The mutex of Outliers guards what follows.
	failures  int
	ejections int
	last      time.Time // failure
}

// Outliers notes the connects of one node that fail, and says which endpoints to leave out because of it. Leaving out
// is local: another node may reach what this one can't.
//
// Asking costs one atomic load while no endpoint has failed, which is nearly always, and never takes a lock. It is safe
// for concurrent use.
type Outliers struct {
	cfg       atomic.Pointer[OutlierConfig]
	entries   atomic.Pointer[map[hostKey]*outlier] // never changed in place; nil: empty
	latest    atomic.Int64                         // the end of the last ejection, as outlier.until
	ejections atomic.Uint64
	forgotten atomic.Uint64
	mu        sync.Mutex // held while entries is replaced
}

// NewOutliers returns an Outliers that knows of no failure.
func NewOutliers(cfg OutlierConfig) *Outliers {
	o := &Outliers{}
	o.cfg.Store(&cfg)
	return o
}

// EjectedElsewhere returns what a node knows that has ejected the given endpoints, for Explain.
func EjectedElsewhere(cfg OutlierConfig, proto ax.Protocol, hosts []netip.AddrPort, now time.Time) *Outliers {
	cfg.Failures, cfg.Base, cfg.Max = 1, time.Hour, time.Hour
	o := NewOutliers(cfg)
	for _, h := range hosts {
		o.Failed(proto, h, now)
	}
	return o
}

// Config returns the configuration in effect.
func (o *Outliers) Config() OutlierConfig { return *o.cfg.Load() }

// Configure changes the configuration. Ejections that have begun last as long as they were to.
func (o *Outliers) Configure(cfg OutlierConfig) { o.cfg.Store(&cfg) }

// Failed notes a connect that failed. If it ejects the endpoint, it returns until when.
func (o *Outliers) Failed(proto ax.Protocol, host netip.AddrPort, now time.Time) (until time.Time, ejected bool) {
	cfg := o.cfg.Load()
	if cfg.Failures == 0 {
		return time.Time{}, false
	}
	key := hostKey{proto, plainAddrPort(host)}
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.get(key)
	if e == nil {
		e = o.add(key)
	}
	e.last = now
	if now.UnixNano() < e.until.Load() {
		return time.Time{}, false // others that had begun before, or nobody else was left
	}
	e.failures++
	// One that has been ejected is on probation: it is back, and its first failure ejects it again.
	if e.failures < cfg.Failures && e.ejections == 0 {
		return time.Time{}, false
	}
	e.ejections++
	until = now.Add(cfg.duration(e.ejections))
	e.until.Store(until.UnixNano())
	o.latest.Store(max(o.latest.Load(), until.UnixNano()))
	o.ejections.Add(1)
	return until, true
}

// duration returns how long the n-th ejection in a row lasts.
func (c OutlierConfig) duration(n int) time.Duration {
	d := c.Base
	for range n - 1 {
		if d >= c.Max/2 {
			d = c.Max
			break
		}
		d *= 2
	}
	// Less, not more, so that Max is the longest: nodes that have ejected an endpoint at once return one by one.
	return d - rand.N(d/10+1)
}

// Succeeded notes a connect that succeeded: what was held against the endpoint is forgotten.
func (o *Outliers) Succeeded(proto ax.Protocol, host netip.AddrPort) {
	if o.entries.Load() == nil {
		return
	}
	key := hostKey{proto, plainAddrPort(host)}
	if o.get(key) == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(key)
}

// Ejected returns until when an endpoint is left out; zero if it is not.
func (o *Outliers) Ejected(proto ax.Protocol, host netip.AddrPort, now time.Time) time.Time {
	if o.entries.Load() == nil {
		return time.Time{}
	}
	e := o.get(hostKey{proto, plainAddrPort(host)})
	if e == nil {
		return time.Time{}
	}
	if until := e.until.Load(); now.UnixNano() < until {
		return time.Unix(0, until)
	}
	return time.Time{}
}

// List returns the endpoints to which the last connects have failed, by address.
func (o *Outliers) List() []Ejection {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []Ejection
	if m := o.entries.Load(); m != nil {
		for k, e := range *m {
			entry := Ejection{Proto: k.proto, Host: k.addr, Failures: e.failures, Ejections: e.ejections}
			if until := e.until.Load(); until != 0 {
				entry.Until = time.Unix(0, until)
			}
			out = append(out, entry)
		}
	}
	slices.SortFunc(out, func(a, b Ejection) int {
		return cmp.Or(ax.CompareAddrPort(a.Host, b.Host), cmp.Compare(a.Proto, b.Proto))
	})
	return out
}

// Ejections counts the ejections, ever.
func (o *Outliers) Ejections() uint64 { return o.ejections.Load() }

// Forgotten counts the endpoints that were forgotten because there were more than [MaxOutliers].
func (o *Outliers) Forgotten() uint64 { return o.forgotten.Load() }

func (o *Outliers) get(key hostKey) *outlier {
	m := o.entries.Load()
	if m == nil {
		return nil
	}
	return (*m)[key]
}

// add makes an entry. The caller holds mu.
func (o *Outliers) add(key hostKey) *outlier {
	grown := map[hostKey]*outlier{}
	if m := o.entries.Load(); m != nil {
		grown = maps.Clone(*m)
	}
	if len(grown) >= MaxOutliers {
		var oldest hostKey
		var last time.Time
		for k, e := range grown {
			if last.IsZero() || e.last.Before(last) {
				oldest, last = k, e.last
			}
		}
		delete(grown, oldest)
		o.forgotten.Add(1)
	}
	e := &outlier{}
	grown[key] = e
	o.entries.Store(&grown)
	return e
}

// drop forgets an entry. The caller holds mu.
func (o *Outliers) drop(key hostKey) {
	m := o.entries.Load()
	if m == nil || (*m)[key] == nil {
		return
	}
	if len(*m) == 1 {
		o.entries.Store(nil)
		return
	}
	less := maps.Clone(*m)
	delete(less, key)
	o.entries.Store(&less)
}

// Expire forgets what is so long past that it says nothing any more: that an endpoint failed, or was ejected, before the
// time of the longest ejection. Most are gone from the table by then. It is called every now and then.
func (o *Outliers) Expire(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.entries.Load()
	if m == nil {
		return
	}
	less := maps.Clone(*m)
	before := now.Add(-o.cfg.Load().Max)
	maps.DeleteFunc(less, func(_ hostKey, e *outlier) bool {
		return e.last.Before(before) && e.until.Load() < before.UnixNano()
	})
	switch len(less) {
	case len(*m):
	case 0:
		o.entries.Store(nil)
	default:
		o.entries.Store(&less)
	}
}

// known reports whether anything is known at all: a cheap question, nearly always with the answer no.
func (o *Outliers) known() bool { return o != nil && o.entries.Load() != nil }

// any reports whether an endpoint may be left out.
func (o *Outliers) any(now time.Time) bool { return o.known() && now.UnixNano() < o.latest.Load() }

// setAside moves ejected endpoints from those that are preferred to those that are a last resort: in the order of their
// ids, as many as the share allows, and never all that there are. If others are a last resort already, none may be left
// that is preferred; then all are equal, rather than that the one that fails comes before those.
func (o *Outliers) setAside(g *group, first, last mask, now time.Time) {
	n := first.count() + last.count()
	limit := min(o.cfg.Load().limit(n), n-1)
	for i := first.next(0); i >= 0 && limit > 0; i = first.next(i + 1) {
		e := g.endpoints[i]
		if !o.Ejected(e.Proto, e.Host, now).IsZero() {
			first.clear(i)
			last.set(i)
			limit--
		}
	}
}

// limit returns how many of n endpoints may be left out: the share, and one in any case if there are two.
func (c OutlierConfig) limit(n int) int {
	if c.Share == 0 {
		return 0
	}
	return max(n*c.Share/100, 1)
}
