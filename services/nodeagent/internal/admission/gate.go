package admission

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Gate is the decision of the moment: with the rules that hold now, counted and logged.
type Gate struct {
	log     *slog.Logger
	rules   atomic.Pointer[Rules]
	refused *prometheus.CounterVec
}

// NewGate makes a gate.
func NewGate(rules Rules, log *slog.Logger, metrics prometheus.Registerer) (*Gate, error) {
	g := &Gate{log: log, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "appswitch_nodeagent_claims_refused_total",
		Help: "Names, addresses and labels that local clients asked for and may not claim, by kind of claim: ip, name or label.",
	}, []string{"claim"})}
	for _, k := range Kinds() {
		g.refused.WithLabelValues(string(k))
	}
	g.Set(rules)
	if err := metrics.Register(g.refused); err != nil {
		return nil, fmt.Errorf("register metric: %w", err)
	}
	return g, nil
}

// Set puts other rules in the place of those before.
func (g *Gate) Set(rules Rules) { g.rules.Store(&rules) }

// Admit returns "" if the client may make its claims, or else says which it may not and what would allow them.
func (g *Gate) Admit(client Client, claims Claims) string {
	refused := g.rules.Load().Refused(client, claims)
	if len(refused) == 0 {
		return ""
	}
	for _, c := range refused {
		g.refused.WithLabelValues(string(c.Kind)).Inc()
		g.log.Warn("claim refused", "claim", c.Kind, "value", c.Value, "uid", client.UID, "pid", client.PID, "cgroup", client.Cgroup, "container", client.Container)
	}
	return Explain(client, refused)
}
