package seccomp

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

// TestCallMetrics: a call is measured twice, by the thread's time and as a whole, and counted by its result; none of that
// allocates.
func TestCallMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	task := &task{d: &Driver{deps: Deps{Metrics: m}}}
	begin := func(nr int32, ago time.Duration) *call {
		at := time.Now().Add(-ago)
		return &call{nr: nr, began: at, came: at}
	}
	c := begin(unix.SYS_CONNECT, 0)
	task.observe(c) // it is parked
	c.came = c.came.Add(-10 * time.Second)
	task.ended(c, syscall.ECONNREFUSED)
	task.ended(begin(unix.SYS_CONNECT, 0), 0)
	task.ended(begin(unix.SYS_CONNECT, 0), syscall.Errno(4095)) // none that there is
	task.ended(begin(unix.SYS_READ, 0), 0)                      // not intercepted
	const want = `
# HELP appswitch_nodeagent_call_results_total Intercepted calls that were answered, by the errno given to the application; ok is success.
# TYPE appswitch_nodeagent_call_results_total counter
appswitch_nodeagent_call_results_total{call="connect",errno="ECONNREFUSED"} 1
appswitch_nodeagent_call_results_total{call="connect",errno="EHWPOISON"} 1
appswitch_nodeagent_call_results_total{call="connect",errno="ok"} 1
`
	var others []string
	for _, name := range callNames {
		if name != "connect" {
			others = append(others, `appswitch_nodeagent_call_results_total{call="`+name+`",errno="ok"} 0`)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want+strings.Join(others, "\n")+"\n"), "appswitch_nodeagent_call_results_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			if metric.GetHistogram() == nil || metric.GetLabel()[0].GetValue() != "connect" {
				continue
			}
			h := metric.GetHistogram()
			whole := f.GetName() == "appswitch_nodeagent_interception_seconds"
			if h.GetSampleCount() != 3 || (h.GetSampleSum() > 9) != whole {
				t.Errorf("%s: %d calls, %v s", f.GetName(), h.GetSampleCount(), h.GetSampleSum())
			}
		}
	}
	c = begin(unix.SYS_ACCEPT4, 0)
	if n := testing.AllocsPerRun(100, func() {
		c.began = c.came
		task.ended(c, syscall.EAGAIN)
	}); n > 0 {
		t.Errorf("%v allocations for a call", n)
	}
}
