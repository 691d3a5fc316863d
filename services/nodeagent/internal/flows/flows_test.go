package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func newLog(t testing.TB) (*Log, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewRegistry()
	l, err := New(r)
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

func flow(app string, n int) Flow {
	return Flow{
		App: ax.AppID(app), Proto: ax.TCP, Dest: netip.AddrPortFrom(netip.MustParseAddr("1.1.1.1"), uint16(n)),
		Verdict: ax.Allow, Reason: ax.ReasonLabels,
	}
}

func ports(flows []Flow) string {
	var s []string
	for _, f := range flows {
		s = append(s, fmt.Sprint(f.Dest.Port()))
	}
	return strings.Join(s, " ")
}

// TestSelected: past flows are selected by time, number and what the caller looks at, and say whose they are.
func TestSelected(t *testing.T) {
	l, _ := newLog(t)
	l.Identify(func(id ax.AppID) (string, ax.Labels) { return "name of " + string(id), ax.Labels{"app": string(id)} })
	start := time.Unix(1000, 0)
	for i := 1; i <= 6; i++ {
		f := flow("a", i)
		f.Time = start.Add(time.Duration(i) * time.Second)
		l.Add(f)
	}
	even := func(f *Flow) bool { return f.Dest.Port()%2 == 0 }
	for _, c := range []struct {
		filter Filter
		past   string // what a watcher has first
		last   string
	}{
		{Filter{}, "", "1 2 3 4 5 6"},
		{Filter{Last: 2}, "5 6", "5 6"},
		{Filter{Since: start.Add(4 * time.Second)}, "4 5 6", "4 5 6"},
		{Filter{Since: start.Add(4 * time.Second), Last: 2}, "5 6", "5 6"},
		{Filter{Since: start.Add(2 * time.Second), Match: even}, "2 4 6", "2 4 6"},
		{Filter{Last: 2, Match: even}, "4 6", "4 6"},
		{Filter{Since: start.Add(time.Minute)}, "", ""},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ch, _, err := l.Subscribe(ctx, c.filter)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		var past []Flow
		for f := range ch {
			past = append(past, f)
		}
		if got, last := ports(past), ports(l.Last(c.filter)); got != c.past || last != c.last {
			t.Errorf("%+v: past %q, last %q, want %q, %q", c.filter, got, last, c.past, c.last)
		}
	}
	if f := l.Last(Filter{Last: 1})[0]; f.Name != "name of a" || f.Labels["app"] != "a" {
		t.Errorf("whose flow: %q %v", f.Name, f.Labels)
	}
}

func TestLast(t *testing.T) {
	l, _ := newLog(t)
	if got := l.Last(Filter{}); len(got) != 0 {
		t.Errorf("an empty log has %v", got)
	}
	for i := 1; i <= 6; i++ {
		l.Add(flow([]string{"even", "odd"}[i%2], i))
	}
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, "1 2 3 4 5 6"},
		{Filter{Last: 2}, "5 6"},
		{Filter{App: "odd"}, "1 3 5"},
		{Filter{App: "odd", Last: 2}, "3 5"},
		{Filter{App: "none"}, ""},
	} {
		if got := ports(l.Last(c.filter)); got != c.want {
			t.Errorf("Last(%+v) = %q, want %q", c.filter, got, c.want)
		}
	}
	for i := range 3 * Kept {
		l.Add(flow("new", i))
	}
	last := l.Last(Filter{})
	if len(last) != Kept || last[0].Dest.Port() != 2*Kept || last[Kept-1].Dest.Port() != 3*Kept-1 {
		t.Errorf("%d flows from %v to %v are kept", len(last), last[0].Dest, last[len(last)-1].Dest)
	}
}

func TestTimeIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLog(t)
		l.Add(flow("a", 1))
		given := flow("a", 2)
		given.Time = time.Unix(5, 0)
		l.Add(given)
		last := l.Last(Filter{})
		if !last[0].Time.Equal(time.Now()) || !last[1].Time.Equal(given.Time) {
			t.Errorf("times are %v and %v", last[0].Time, last[1].Time)
		}
	})
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLog(t)
		for i := range 5 {
			l.Add(flow("a", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		ch, missed, err := l.Subscribe(ctx, Filter{App: "a", Last: 2})
		if err != nil {
			t.Fatal(err)
		}
		l.Add(flow("b", 100))
		l.Add(flow("a", 5))
		want := flow("a", 6)
		want.Errno, want.Retries, want.Host = syscall.ECONNREFUSED, 2, netip.MustParseAddrPort("10.0.0.1:40000")
		want.Time = time.Now()
		l.Add(want)
		for _, port := range []uint16{3, 4, 5} {
			if f := <-ch; f.Dest.Port() != port {
				t.Errorf("flow to port %d, want %d", f.Dest.Port(), port)
			}
		}
		if f := <-ch; !reflect.DeepEqual(f, want) {
			t.Errorf("flow %+v, want %+v", f, want)
		}
		if n := missed(); n != 0 {
			t.Errorf("%d flows missed", n)
		}
		cancel()
		synctest.Wait()
		if _, open := <-ch; open || l.Watchers() != 0 {
			t.Errorf("after the end the channel is open: %v, and %d watch", open, l.Watchers())
		}
		l.Add(flow("a", 7)) // must not reach the closed channel
	})
}

func TestSlowWatcherMisses(t *testing.T) {
	l, r := newLog(t)
	ch, missed, err := l.Subscribe(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range Buffer + 10 {
		l.Add(flow("a", i))
	}
	if n := missed(); n != 10 {
		t.Errorf("%d missed, want 10", n)
	}
	if n := missed(); n != 0 {
		t.Errorf("%d missed when asked again, want 0", n)
	}
	for i := range Buffer {
		if f := <-ch; int(f.Dest.Port()) != i {
			t.Fatalf("flow to port %d, want %d", f.Dest.Port(), i)
		}
	}
	if n, err := testutil.GatherAndCount(r, "appswitch_nodeagent_flows_missed_total"); n != 1 || err != nil {
		t.Errorf("metric: %d, %v", n, err)
	}
}

func TestSubscribeAsksForTooMuch(t *testing.T) {
	l, _ := newLog(t)
	for i := range 2 * Kept {
		l.Add(flow("a", i))
	}
	ch, _, err := l.Subscribe(t.Context(), Filter{Last: 1 << 30})
	if err != nil || len(ch) != Kept {
		t.Errorf("%d past flows, %v; want %d", len(ch), err, Kept)
	}
	for i := 1; i < MaxWatchers; i++ {
		if _, _, err := l.Subscribe(t.Context(), Filter{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := l.Subscribe(t.Context(), Filter{}); !errors.Is(err, ErrTooManyWatchers) {
		t.Errorf("watcher %d: %v", MaxWatchers+1, err)
	}
}

func TestMetrics(t *testing.T) {
	l, r := newLog(t)
	for range 3 {
		l.Add(flow("a", 1))
	}
	denied := flow("a", 1)
	denied.Verdict, denied.Reason = ax.Deny, ax.ReasonNoLabel
	l.Add(denied)
	want := `
# HELP appswitch_nodeagent_connects_total Connects of applications by how they were decided.
# TYPE appswitch_nodeagent_connects_total counter
appswitch_nodeagent_connects_total{reason="endpoints-failed",verdict="deny"} 0
appswitch_nodeagent_connects_total{reason="external",verdict="passthrough"} 0
appswitch_nodeagent_connects_total{reason="loopback",verdict="passthrough"} 0
appswitch_nodeagent_connects_total{reason="no-endpoint",verdict="deny"} 0
appswitch_nodeagent_connects_total{reason="no-shared-label",verdict="deny"} 1
appswitch_nodeagent_connects_total{reason="shared-label",verdict="allow"} 3
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "appswitch_nodeagent_connects_total"); err != nil {
		t.Error(err)
	}
	for i := range 2 * maxOutcomes {
		denied.Reason = ax.Reason(fmt.Sprint("odd", i))
		l.Add(denied)
	}
	if n, err := testutil.GatherAndCount(r, "appswitch_nodeagent_connects_total"); n != maxOutcomes+1 || err != nil {
		t.Errorf("%d label values, %v; want %d", n, err, maxOutcomes+1)
	}
	if _, err := New(r); err == nil {
		t.Error("two logs share their metrics")
	}
}

// TestPolicyMetric counts by the policies' names, of which there are so many and no more.
func TestPolicyMetric(t *testing.T) {
	l, r := newLog(t)
	f := flow("a", 1)
	f.Policy = "admits"
	l.Add(f)
	f.Audit = "tells"
	l.Add(f)
	f = flow("a", 1)
	f.Verdict, f.Reason, f.Policy = ax.Deny, ax.ReasonPolicyDeny, "refuses"
	l.Add(f)
	const name = "appswitch_nodeagent_policy_flows_total"
	want := `
# HELP appswitch_nodeagent_policy_flows_total Flows that a policy decided, by its name and what it did: allow, deny, or audit, which only tells what would be refused.
# TYPE appswitch_nodeagent_policy_flows_total counter
appswitch_nodeagent_policy_flows_total{outcome="allow",policy="admits"} 2
appswitch_nodeagent_policy_flows_total{outcome="allow",policy="other"} 0
appswitch_nodeagent_policy_flows_total{outcome="audit",policy="other"} 0
appswitch_nodeagent_policy_flows_total{outcome="audit",policy="tells"} 1
appswitch_nodeagent_policy_flows_total{outcome="deny",policy="other"} 0
appswitch_nodeagent_policy_flows_total{outcome="deny",policy="refuses"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), name); err != nil {
		t.Error(err)
	}
	for i := range 2 * maxPolicies {
		f.Policy = fmt.Sprint("p", i)
		l.Add(f)
	}
	if n, err := testutil.GatherAndCount(r, name); n != maxPolicies+3 || err != nil {
		t.Errorf("%d label values, %v; want %d", n, err, maxPolicies+3)
	}
}

func TestConcurrent(t *testing.T) {
	l, _ := newLog(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				l.Add(flow("a", i))
			}
		})
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				ch, missed, err := l.Subscribe(ctx, Filter{Last: 10})
				if err != nil {
					t.Error(err)
				}
				cancel()
				for range ch { //nolint:revive // until it is closed
				}
				missed()
				l.Last(Filter{Last: 3})
			}
		})
	}
	wg.Wait()
	if l.added != 8000 || l.Watchers() != 0 {
		t.Errorf("%d flows, %d watchers; want 8000, 0", l.added, l.Watchers())
	}
}

func BenchmarkAdd(b *testing.B) {
	l, _ := newLog(b)
	f := flow("a", 1)
	f.Time = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		l.Add(f)
	}
}
