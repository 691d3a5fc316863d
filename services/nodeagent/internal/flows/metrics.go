package flows

import (
	"errors"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
)

// maxOutcomes bounds the label values of the metric; the vocabulary has far fewer.
const maxOutcomes = 64

type outcome struct {
	verdict ax.Verdict
	reason  ax.Reason
}

type metrics struct {
	connects *prometheus.CounterVec
	missed   prometheus.Counter
	retries  prometheus.Counter
	outcomes map[outcome]prometheus.Counter // those met so far; the log's lock guards it
}

// usual are the outcomes that are there from the start, so that their rates are known to be zero before.
var usual = []outcome{
	{ax.Allow, ax.ReasonLabels}, {ax.Deny, ax.ReasonNoLabel}, {ax.Deny, ax.ReasonNoEndpoint}, {ax.Deny, ax.ReasonTried},
	{ax.Passthrough, ax.ReasonExternal}, {ax.Passthrough, ax.ReasonLoopback},
}

func newMetrics() *metrics {
	m := &metrics{
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_connects_total",
			Help: "Connects of applications by how they were decided.",
		}, []string{"verdict", "reason"}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_flows_missed_total",
			Help: "Flows left out for watchers that were too slow.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_connect_retries_total",
			Help: "Endpoints that connects were refused by, and went on from to another one.",
		}),
		outcomes: map[outcome]prometheus.Counter{},
	}
	for _, o := range usual {
		m.outcomes[o] = m.connects.WithLabelValues(o.verdict.String(), string(o.reason))
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.connects), r.Register(m.missed), r.Register(m.retries))
}

func (m *metrics) count(v ax.Verdict, r ax.Reason) {
	c, ok := m.outcomes[outcome{v, r}]
	if !ok {
		if len(m.outcomes) >= maxOutcomes {
			m.connects.WithLabelValues("other", "other").Inc()
			return
		}
		c = m.connects.WithLabelValues(v.String(), string(r))
		m.outcomes[outcome{v, r}] = c
	}
	c.Inc()
}
