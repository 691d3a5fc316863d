package routes

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct{ reconnects prometheus.Counter }

func (m *metrics) register(r prometheus.Registerer, w *Watcher) error {
	m.reconnects = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "appswitch_nodeagent_routes_reconnects_total",
		Help: "Times the stream of routes broke or could not be opened.",
	})
	revision := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_routes_revision",
		Help: "Revision of the service table for which the routes in use stand; 0 until they have arrived.",
	}, func() float64 {
		if s := w.Snapshot(); s != nil {
			return float64(s.Revision())
		}
		return 0
	})
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_routes_age_seconds",
		Help: "Time since the routes were last known to match the service table.",
	}, func() float64 { return w.Age().Seconds() })
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "appswitch_nodeagent_routes_connected",
		Help: "1 while the stream of routes is up.",
	}, func() float64 {
		if w.Connected() {
			return 1
		}
		return 0
	})
	return errors.Join(r.Register(m.reconnects), r.Register(revision), r.Register(age), r.Register(connected))
}
