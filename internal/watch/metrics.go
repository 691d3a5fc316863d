package watch

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reconnects prometheus.Counter
	invalid    prometheus.Counter
}

// register names the metrics after the watching service: several services share one registerer in `ax daemon`.
func (m *metrics) register(service string, r prometheus.Registerer, status func() Status) error {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "appswitch", Subsystem: service, Name: name, Help: help}
	}
	m.reconnects = prometheus.NewCounter(prometheus.CounterOpts(opts("watch_reconnects_total", "Times the watch of the service table broke or could not be opened.")))
	m.invalid = prometheus.NewCounter(prometheus.CounterOpts(opts("watch_invalid_records_total", "Records of the service table ignored because they did not validate.")))
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("watch_connected", "1 while the watch of the service table is open.")), func() float64 {
		if status().Connected {
			return 1
		}
		return 0
	})
	revision := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("watch_revision", "Revision of the service table as last seen.")), func() float64 {
		return float64(status().Revision)
	})
	contact := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("watch_last_contact_timestamp_seconds", "Unix time at which the registry was last heard of; 0 if never.")), func() float64 {
		if t := status().LastContact; !t.IsZero() {
			return float64(t.UnixMilli()) / 1000
		}
		return 0
	})
	var err error
	for _, c := range []prometheus.Collector{m.reconnects, m.invalid, connected, revision, contact} {
		err = errors.Join(err, r.Register(c))
	}
	return err
}
