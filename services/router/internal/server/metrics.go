package server

import (
	"errors"

	"appswitch.io/services/router/internal/build"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	snapshots, deltas, coalesced, cutOff, refused prometheus.Counter
	apply                                         prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, s *Server) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "appswitch", Subsystem: "router", Name: name, Help: help})
	}
	m := &metrics{
		snapshots: counter("snapshots_sent_total", "Whole snapshots sent to nodes."),
		deltas:    counter("deltas_sent_total", "Deltas sent to nodes."),
		coalesced: counter("deltas_coalesced_total", "Deltas that were merged into the next one because the node was still receiving."),
		cutOff:    counter("watchers_cut_off_total", "Nodes cut off because they did not receive."),
		refused:   counter("watchers_refused_total", "Nodes refused because too many were watching."),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "appswitch", Subsystem: "router", Name: "apply_seconds", Help: "Time to turn a change of the table into a snapshot.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12),
		}),
	}
	err := errors.Join(r.Register(m.snapshots), r.Register(m.deltas), r.Register(m.coalesced), r.Register(m.cutOff), r.Register(m.refused), r.Register(m.apply))
	return m, errors.Join(err, r.Register(gauges{s}))
}

var (
	watchersDesc = prometheus.NewDesc("appswitch_router_watchers", "Nodes that watch routes.", nil, nil)
	revisionDesc = prometheus.NewDesc("appswitch_router_revision", "Revision of the routes; 0 before there are any.", nil, nil)
	servicesDesc = prometheus.NewDesc("appswitch_router_services", "Virtual addresses and ports that have endpoints.", nil, nil)
	recordsDesc  = prometheus.NewDesc("appswitch_router_records", "Records of the service table.", []string{"kind"}, nil)
)

// gauges are read when asked for, so that they cost a change of the table nothing.
type gauges struct{ s *Server }

// Describe implements prometheus.Collector.
func (g gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{watchersDesc, revisionDesc, servicesDesc, recordsDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(watchersDesc, int(g.s.watchers.Load()))
	revision, services := 0, 0
	if snapshot := g.s.current.Load().snapshot; snapshot != nil {
		revision, services = int(snapshot.Revision()), snapshot.Size().Services
	}
	gauge(revisionDesc, revision)
	gauge(servicesDesc, services)
	n := g.s.counts()
	gauge(recordsDesc, n.Nodes, "node")
	gauge(recordsDesc, n.Apps, "app")
	gauge(recordsDesc, n.Endpoints, "endpoint")
	gauge(recordsDesc, n.VirtualServices, "virtual_service")
	gauge(recordsDesc, n.Policies, "policy")
	gauge(recordsDesc, n.Claims, "address_claim")
}

func (s *Server) counts() build.Counts {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.builder.Counts()
}
