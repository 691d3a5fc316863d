package server

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	watchers    prometheus.Gauge
	cutOff      prometheus.Counter
	revision    prometheus.Gauge
	records     prometheus.Gauge
	connected   prometheus.Gauge
	relists     prometheus.Counter
	invalid     prometheus.Counter
	lists       prometheus.Counter
	resumes     prometheus.Counter
	writes      prometheus.Counter
	writeTime   prometheus.Histogram
	leases      prometheus.Counter
	renewals    prometheus.Counter
	unrenewed   prometheus.Counter
	claimsFreed prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "appswitch", Subsystem: "registry", Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	m := &metrics{
		watchers:    gauge("watchers", "Watches that are open."),
		cutOff:      counter("watchers_cut_off_total", "Watches that were cut off because their queue was full."),
		revision:    gauge("table_revision", "Revision of the copy of the service table."),
		records:     gauge("table_records", "Records in the copy of the service table."),
		connected:   gauge("store_connected", "1 while the copy of the service table follows the store."),
		relists:     counter("store_lists_total", "Times the whole service table was read from the store."),
		invalid:     counter("store_invalid_records_total", "Records in the store that were ignored because they can't be read."),
		lists:       counter("watch_lists_total", "Watches that began with a list."),
		resumes:     counter("watch_resumes_total", "Watches that were resumed."),
		writes:      counter("writes_total", "Transactions written for callers."),
		claimsFreed: counter("claims_freed_total", "Address claims that ended because nothing held them."),
	}
	m.writeTime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "appswitch", Subsystem: "registry", Name: "write_seconds", Help: "Time that the store takes for a transaction, failed ones included.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	})
	m.leases = counter("leases_granted_total", "Leases granted to nodes.")
	m.renewals = counter("lease_renewals_total", "Leases of nodes that were kept alive.")
	m.unrenewed = counter("lease_renewal_failures_total", "Leases that could not be kept alive: expired, replaced by the node, or the store was away.")
	var err error
	for _, c := range []prometheus.Collector{
		m.watchers, m.cutOff, m.revision, m.records, m.connected, m.relists, m.invalid, m.lists, m.resumes, m.writes, m.claimsFreed,
		m.writeTime, m.leases, m.renewals, m.unrenewed,
	} {
		err = errors.Join(err, r.Register(c))
	}
	if err != nil {
		return nil, fmt.Errorf("registry metrics: %w", err)
	}
	return m, nil
}
