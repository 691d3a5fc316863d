package publish

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	writes   prometheus.Counter
	refused  prometheus.Counter
	sessions prometheus.Counter
	latency  prometheus.Histogram
}

func (m *metrics) register(r prometheus.Registerer, stats func() Stats) error {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "appswitch", Subsystem: "nodeagent", Name: name, Help: help})
	}
	m.writes = counter("publish_records_total", "Records written to the service table or deleted from it.")
	m.refused = counter("publish_refused_total", "Records that the registry refuses for good.")
	m.sessions = counter("publish_failures_total", "Times publishing was interrupted.")
	m.latency = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "appswitch_nodeagent_publish_seconds",
		Help:    "Time from a change on the node to its confirmation by the registry.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
	})
	pending := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_publish_pending",
		Help: "Records that wait to be published.",
	}, func() float64 { return float64(stats().Pending) })
	lease := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_lease_alive",
		Help: "1 while the node's lease is alive.",
	}, func() float64 {
		if stats().LeaseAlive {
			return 1
		}
		return 0
	})
	return errors.Join(r.Register(m.writes), r.Register(m.refused), r.Register(m.sessions), r.Register(m.latency), r.Register(pending), r.Register(lease))
}

func (m *metrics) written(changes []change) {
	m.writes.Add(float64(len(changes)))
	for _, c := range changes {
		m.latency.Observe(time.Since(c.since).Seconds())
	}
}
