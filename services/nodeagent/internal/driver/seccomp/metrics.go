package seccomp

import (
	"errors"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Metrics of the driver.
type Metrics struct {
	PortsExhausted prometheus.Counter
	Rejected       prometheus.Counter
	UDPUnnumbered  prometheus.Counter

	DatagramsRejected prometheus.Counter
	calls             [maxCall]*callMetrics // by number; nil for what is not intercepted
}

const (
	maxCall  = 512 // above every number of callNames, on every architecture
	maxErrno = 134 // above every errno of Linux (EHWPOISON is 133)
)

// callMetrics are those of one call. All is found by index and counted in place: a call costs neither a search nor an
// allocation.
type callMetrics struct {
	name   string
	thread prometheus.Observer // time of the agent's thread
	whole  prometheus.Observer // from the arrival of a call to its answer
	errnos [maxErrno]atomic.Uint64
}

var callNames = map[int32]string{
	unix.SYS_SOCKET: "socket", unix.SYS_BIND: "bind", unix.SYS_LISTEN: "listen", unix.SYS_CONNECT: "connect",
	unix.SYS_ACCEPT: "accept", unix.SYS_ACCEPT4: "accept4", unix.SYS_GETSOCKNAME: "getsockname", unix.SYS_GETPEERNAME: "getpeername",
	unix.SYS_SENDTO: "sendto", unix.SYS_RECVFROM: "recvfrom", unix.SYS_SENDMSG: "sendmsg", unix.SYS_RECVMSG: "recvmsg",
	unix.SYS_SENDMMSG: "sendmmsg", unix.SYS_RECVMMSG: "recvmmsg",
	unix.SYS_DUP: "dup", unix.SYS_FCNTL: "fcntl",
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
		DatagramsRejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_datagrams_rejected_total", Help: "Datagrams to applications' host ports from senders that nobody announced, and that were dropped.",
		}),
		UDPUnnumbered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_udp_unnumbered_total",
			Help: "UDP sockets for which no descriptor number was free that the filter knows them by: what they do by sendmsg and recvmsg is not translated.",
		}),
	}
	thread := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "appswitch_nodeagent_call_seconds", Help: "Time the agent's thread spends on an intercepted call, without waiting.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 2, 16),
	}, []string{"call"})
	whole := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "appswitch_nodeagent_interception_seconds", Help: "Time from the arrival of an intercepted call to its answer, waiting included.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 14), // to 67 s
	}, []string{"call"})
	for nr, name := range callNames {
		m.calls[nr] = &callMetrics{name: name, thread: thread.WithLabelValues(name), whole: whole.WithLabelValues(name)}
	}
	return m, errors.Join(r.Register(m.PortsExhausted), r.Register(m.Rejected), r.Register(m.UDPUnnumbered), r.Register(m.DatagramsRejected), r.Register(thread), r.Register(whole), r.Register(outcomes{m}))
}

func (m *Metrics) of(nr int32) *callMetrics {
	if nr < 0 || nr >= maxCall {
		return nil
	}
	return m.calls[nr]
}

func (m *Metrics) observe(nr int32, d time.Duration) {
	if c := m.of(nr); c != nil {
		c.thread.Observe(d.Seconds())
	}
}

// ended counts a call that is about to be answered.
func (t *task) ended(c *call, errno syscall.Errno) {
	waited := c.began.IsZero()
	t.observe(c)
	m := t.d.deps.Metrics.of(c.nr)
	if m == nil {
		return
	}
	whole := c.took
	if waited {
		whole = time.Since(c.came)
	}
	m.whole.Observe(whole.Seconds())
	m.errnos[min(errno, maxErrno-1)].Add(1)
}

var outcomesDesc = prometheus.NewDesc("appswitch_nodeagent_call_results_total",
	"Intercepted calls that were answered, by the errno given to the application; ok is success.", []string{"call", "errno"}, nil)

// outcomes shows the results that there were; success always, so that rates are known to be zero before.
type outcomes struct{ m *Metrics }

// Describe implements prometheus.Collector.
func (o outcomes) Describe(out chan<- *prometheus.Desc) { out <- outcomesDesc }

// Collect implements prometheus.Collector.
func (o outcomes) Collect(out chan<- prometheus.Metric) {
	for _, c := range o.m.calls {
		if c == nil {
			continue
		}
		for errno := range c.errnos {
			n := c.errnos[errno].Load()
			if n == 0 && errno != 0 {
				continue
			}
			name := "ok"
			if errno != 0 {
				if name = unix.ErrnoName(syscall.Errno(errno)); name == "" {
					name = strconv.Itoa(errno)
				}
			}
			out <- prometheus.MustNewConstMetric(outcomesDesc, prometheus.CounterValue, float64(n), c.name, name)
		}
	}
}
