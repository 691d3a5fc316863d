package flows

import (
	"errors"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
)

// Limits of the metrics' label values.
const (
	maxOutcomes = 64  // the vocabulary has far fewer
	maxPolicies = 256 // names of policies; those of further ones count as otherPolicies
)

const otherPolicies = "other"

type outcome struct {
	verdict ax.Verdict
	reason  ax.Reason
}

type metrics struct {
	connects *prometheus.CounterVec
	policies *prometheus.CounterVec
	missed   prometheus.Counter
	retries  prometheus.Counter
	outcomes map[outcome]prometheus.Counter // those met so far; the log's lock guards it
	names    map[string]struct{}            // of policies met so far; likewise
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
		policies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_policy_flows_total",
			Help: "Flows that a policy decided, by its name and what it did: allow, deny, or audit, which only tells what would be refused.",
		}, []string{"policy", "outcome"}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_flows_missed_total",
			Help: "Flows left out for watchers that were too slow.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_connect_retries_total",
			Help: "Endpoints that connects were refused by, and went on from to another one.",
		}),
		outcomes: map[outcome]prometheus.Counter{}, names: map[string]struct{}{},
	}
	for _, o := range usual {
		m.outcomes[o] = m.connects.WithLabelValues(o.verdict.String(), string(o.reason))
	}
	for _, did := range []string{"allow", "deny", "audit"} {
		m.policies.WithLabelValues(otherPolicies, did)
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.connects), r.Register(m.policies), r.Register(m.missed), r.Register(m.retries))
}

func (m *metrics) count(f *Flow) {
	if f.Policy != "" {
		outcome := "allow"
		if f.Verdict == ax.Deny {
			outcome = "deny"
		}
		m.countPolicy(f.Policy, outcome)
	}
	if f.Audit != "" {
		m.countPolicy(f.Audit, "audit")
	}
	v, r := f.Verdict, f.Reason
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

func (m *metrics) countPolicy(name, outcome string) {
	if _, known := m.names[name]; !known {
		if len(m.names) >= maxPolicies {
			name = otherPolicies
		} else {
			m.names[name] = struct{}{}
		}
	}
	m.policies.WithLabelValues(name, outcome).Inc()
}
