package dnssrv

import (
	"errors"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	queries  *prometheus.CounterVec   // transport, type, rcode
	seconds  *prometheus.HistogramVec // handler
	overflow *prometheus.CounterVec   // queue
	dropped  prometheus.Counter
	silenced prometheus.Counter
	unsent   prometheus.Counter
	failures prometheus.Counter

	quickQueries prometheus.Counter  // of queries, for what Server.quick answers
	quickSeconds prometheus.Observer // of seconds
}

func opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "appswitch", Subsystem: "resolver", Name: name, Help: help}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
}

// latencies are the buckets of a histogram from a name of the table, microseconds, to a forward that times out.
var latencies = []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2, 5}

func register(r prometheus.Registerer, cs ...prometheus.Collector) error {
	var err error
	for _, c := range cs {
		err = errors.Join(err, r.Register(c))
	}
	return err
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		queries: counters("queries_total", "Queries answered.", "transport", "type", "rcode"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "appswitch", Subsystem: "resolver", Name: "query_seconds", Buckets: latencies,
			Help: "Time from a query's arrival to its reply, by the handler that made it.",
		}, []string{"handler"}),
		overflow: counters("overflow_total", "Queries or connections turned away because a queue was full.", "queue"),
		dropped:  counter("dropped_total", "Packets that get no reply: too short, replies themselves, or not received."),
		silenced: counter("silenced_total", "Queries left without reply because the service table was about to arrive."),
		unsent:   counter("unsent_total", "Replies that the kernel did not take."),
		failures: counter("failures_total", "Queries whose handling failed inside the server."),
	}
	m.quickQueries = m.queries.WithLabelValues(udp, typeLabel(dns.TypeA), rcodeLabel(dns.RcodeSuccess))
	m.quickSeconds = m.seconds.WithLabelValues((*Names)(nil).Name())
	for _, queue := range []string{"waiting", "connections"} {
		m.overflow.WithLabelValues(queue)
	}
	return m, register(r, m.queries, m.seconds, m.overflow, m.dropped, m.silenced, m.unsent, m.failures)
}

func (m *metrics) answered(transport string, qtype uint16, rcode int, handler string, start time.Time) {
	m.queries.WithLabelValues(transport, typeLabel(qtype), rcodeLabel(rcode)).Inc()
	m.seconds.WithLabelValues(handler).Observe(time.Since(start).Seconds())
}

// typeLabel keeps the set of labels small, whatever is asked.
func typeLabel(t uint16) string {
	switch t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR, dns.TypeSOA, dns.TypeNS, dns.TypeTXT, dns.TypeMX, dns.TypeCNAME, dns.TypeHTTPS, dns.TypeANY:
		return dns.TypeToString[t]
	case dns.TypeNone:
		return "none"
	}
	return "other"
}

func rcodeLabel(c int) string {
	switch c {
	case dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeBadVers:
		return dns.RcodeToString[c]
	}
	return "other"
}
