package seccomp

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Metrics of the driver.
type Metrics struct {
	PortsExhausted prometheus.Counter
	Rejected       prometheus.Counter
	calls          map[int32]prometheus.Observer
}

var callNames = map[int32]string{
	unix.SYS_SOCKET: "socket", unix.SYS_BIND: "bind", unix.SYS_LISTEN: "listen", unix.SYS_CONNECT: "connect",
	unix.SYS_ACCEPT: "accept", unix.SYS_ACCEPT4: "accept4", unix.SYS_GETSOCKNAME: "getsockname", unix.SYS_GETPEERNAME: "getpeername",
	unix.SYS_SENDTO: "sendto", unix.SYS_RECVFROM: "recvfrom", unix.SYS_SENDMSG: "sendmsg", unix.SYS_RECVMSG: "recvmsg",
	unix.SYS_SENDMMSG: "sendmmsg", unix.SYS_RECVMMSG: "recvmmsg",
}

// NewMetrics registers the driver's metrics.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		PortsExhausted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_ports_exhausted_total", Help: "Binds that failed because every host port of --ports was in use.",
		}),
		Rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_connections_rejected_total", Help: "Connections to applications' host ports that nobody announced, and that were closed.",
		}),
		calls: map[int32]prometheus.Observer{},
	}
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "appswitch_nodeagent_call_seconds", Help: "Time the agent's thread spends on an intercepted call, without waiting.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 2, 16),
	}, []string{"call"})
	for _, c := range []prometheus.Collector{m.PortsExhausted, m.Rejected, latency} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	for nr, name := range callNames {
		m.calls[nr] = latency.WithLabelValues(name)
	}
	return m, nil
}

func (m *Metrics) observe(nr int32, d time.Duration) {
	if o := m.calls[nr]; o != nil {
		o.Observe(d.Seconds())
	}
}
