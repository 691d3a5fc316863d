package dnsrelay

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// What became of queries.
const (
	answered = "answered" // by the resolver
	stale    = "stale"    // from the past
	failed   = "failed"   // SERVFAIL of our own: the resolver has been silent for Patience
	dropped  = "dropped"  // too many are under way
)

type metrics struct {
	queries map[string]prometheus.Counter
	vec     *prometheus.CounterVec // of queries
	seconds prometheus.Histogram
	ignored prometheus.Counter
	unsent  prometheus.Counter
	evicted prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "appswitch_nodeagent_dns_" + name, Help: help})
	}
	m := &metrics{
		queries: map[string]prometheus.Counter{},
		vec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_dns_queries_total",
			Help: "Name lookups of applications: answered by the resolver, answered with what it said earlier, failed, or dropped because too many were under way.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "appswitch_nodeagent_dns_query_seconds",
			Help:    "Time from a name lookup's arrival to its answer.",
			Buckets: []float64{50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 20e-3, 100e-3, 300e-3, 600e-3, 1.2, 2.5, 4.5},
		}),
		ignored: counter("ignored_total", "Packets sent to where applications ask for names that are no queries."),
		unsent:  counter("unsent_total", "Answers to name lookups that the kernel did not take."),
		evicted: counter("cache_evictions_total", "Answers forgotten before their time, to keep the size of the cache."),
	}
	for _, result := range []string{answered, stale, failed, dropped} {
		m.queries[result] = m.vec.WithLabelValues(result)
	}
	return m
}

func (m *metrics) count(result string) { m.queries[result].Inc() }

func (m *metrics) register(r prometheus.Registerer, c *cache) error {
	entries := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_dns_cache_entries", Help: "Answers kept for times when the resolver is silent.",
	}, func() float64 { return float64(c.len()) })
	return errors.Join(r.Register(m.vec), r.Register(m.seconds), r.Register(m.ignored), r.Register(m.unsent), r.Register(m.evicted), r.Register(entries))
}
