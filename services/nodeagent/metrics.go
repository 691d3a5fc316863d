package nodeagent

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// registerSizes registers how much the agent holds; the values are read when somebody asks.
func (s *Service) registerSizes(r prometheus.Registerer) error {
	gauge := func(name, help string, value func() int) error {
		return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "appswitch", Subsystem: "nodeagent", Name: name, Help: help,
		}, func() float64 { return float64(value()) }))
	}
	return errors.Join(
		r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "appswitch", Subsystem: "nodeagent", Name: "udp_sessions_forgotten_total",
			Help: "Conversations of UDP sockets that were forgotten because a socket had too many.",
		}, func() float64 { return float64(s.table.Forgotten()) })),
		gauge("apps", "Applications that run on the node.", func() int { return len(s.manager.List()) }),
		gauge("sockets", "Sockets of applications in the agent's table.", s.table.Len),
		gauge("ports", "Host ports that applications may be given (--ports).", s.ports.Size),
		gauge("ports_used", "Host ports that applications have.", s.ports.Used),
	)
}
