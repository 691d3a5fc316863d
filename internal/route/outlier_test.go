package route_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

var outlierConfig = route.OutlierConfig{Failures: 3, Base: 10 * time.Second, Max: 35 * time.Second, Share: 50}

func host(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 3, byte(n)}), 40000)
}

// cluster has one service of so many endpoints, which change can change.
func cluster(n int, balancer ax.BalancerType, affinity time.Duration, change func(int, *ax.Endpoint)) *route.Snapshot {
	s := route.Service{Key: route.ServiceKey{Proto: ax.TCP, Addr: netip.MustParseAddrPort("1.1.1.1:80")}, Balancer: balancer, Affinity: affinity}
	for i := range n {
		e := &ax.Endpoint{
			ID: ax.EndpointID(fmt.Sprintf("e%03d", i)), App: "0000000a", Node: "n", Proto: ax.TCP, Service: s.Key.Addr, Host: host(i), Labels: ax.DefaultLabels(),
		}
		if change != nil {
			change(i, e)
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return route.Empty().Apply(route.Delta{Revision: 1, Full: true, Upserts: []route.Service{s}})
}

var toService = ax.Flow{App: "0000000b", Labels: ax.DefaultLabels(), Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")}

// reached returns the endpoints that many connects reach, as "e000 e002", or the reason of a refusal.
func reached(d *route.Decider, s *route.Snapshot, tried ...ax.EndpointID) string {
	found := map[ax.EndpointID]bool{}
	for i := range 200 {
		f := toService
		f.App = ax.AppID(fmt.Sprintf("%08x", i)) // for Maglev
		decision := d.Decide(s, f, tried)
		if decision.Verdict != ax.Allow {
			return string(decision.Reason)
		}
		found[decision.Endpoint.ID] = true
	}
	var ids []string
	for id := range found {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	return fmt.Sprint(ids)
}

func TestOutlierTimes(t *testing.T) {
	o := route.NewOutliers(outlierConfig)
	now := time.Unix(1_000_000, 0)
	fail := func() time.Duration {
		until, ejected := o.Failed(ax.TCP, host(1), now)
		if !ejected {
			return 0
		}
		return until.Sub(now)
	}
	between := func(what string, got, atMost time.Duration) {
		t.Helper()
		if got > atMost || got < atMost-atMost/10-1 {
			t.Errorf("%s: ejected for %s, want %s or up to a tenth less", what, got, atMost)
		}
		if left := o.Ejected(ax.TCP, host(1), now); left.Sub(now) != got {
			t.Errorf("%s: ejected until %s, want %s", what, left, got)
		}
	}
	for range 2 {
		if d := fail(); d != 0 {
			t.Fatalf("ejected for %s before the third failure", d)
		}
	}
	between("third failure", fail(), 10*time.Second)
	if d := fail(); d != 0 {
		t.Errorf("a failure while ejected ejects again, for %s", d)
	}
	now = now.Add(11 * time.Second)
	if !o.Ejected(ax.TCP, host(1), now).IsZero() {
		t.Error("still ejected after its time")
	}
	between("first failure after the return", fail(), 20*time.Second)
	for _, what := range []string{"third ejection", "fourth ejection"} {
		now = now.Add(36 * time.Second)
		between(what, fail(), 35*time.Second)
	}
	o.Succeeded(ax.TCP, host(1))
	if !o.Ejected(ax.TCP, host(1), now).IsZero() || len(o.List()) != 0 {
		t.Errorf("after a success: %+v", o.List())
	}
	if d := fail(); d != 0 {
		t.Errorf("the first failure after a success ejects, for %s", d)
	}
	if n := o.Ejections(); n != 4 {
		t.Errorf("%d ejections, want 4", n)
	}
	o.Expire(now.Add(34 * time.Second))
	if len(o.List()) != 1 {
		t.Error("forgotten too early")
	}
	if o.Expire(now.Add(36 * time.Second)); len(o.List()) != 0 {
		t.Errorf("not forgotten: %+v", o.List())
	}
	o.Configure(route.OutlierConfig{Failures: 0, Base: time.Second, Max: time.Second, Share: 50})
	for range 10 {
		if fail() != 0 {
			t.Fatal("ejected though it is switched off")
		}
	}
}

func TestOutliersAreBounded(t *testing.T) {
	o := route.NewOutliers(outlierConfig)
	now := time.Unix(1_000_000, 0)
	at := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 40000)
	}
	for i := range route.MaxOutliers + 2 {
		o.Failed(ax.TCP, at(i), now.Add(time.Duration(i)))
	}
	list := o.List()
	if len(list) != route.MaxOutliers || o.Forgotten() != 2 || list[0].Host != at(2) {
		t.Errorf("%d remembered, %d forgotten, first %s", len(list), o.Forgotten(), list[0].Host)
	}
}

// TestDecideLeavesOutliersOut: with every balancer and with affinity.
func TestDecideLeavesOutliersOut(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		endpoints, share int
		ejected          []int
		want, afterAll   string // when those of want have refused
	}{
		{4, 50, nil, "[e000 e001 e002 e003]", "endpoints-failed"},
		{4, 50, []int{1}, "[e000 e002 e003]", "[e001]"},
		{4, 50, []int{1, 3}, "[e000 e002]", "[e001 e003]"},
		{4, 50, []int{0, 1, 3}, "[e002 e003]", "[e000 e001]"}, // no more than half: the last by id stays
		{4, 100, []int{0, 1, 3}, "[e002]", "[e000 e001 e003]"},
		{4, 100, []int{0, 1, 2, 3}, "[e003]", "[e000 e001 e002]"}, // one stays in any case
		{2, 10, []int{0}, "[e001]", "[e000]"},                     // one of two may go, whatever the share
		{2, 0, []int{0}, "[e000 e001]", "endpoints-failed"},
		{1, 100, []int{0}, "[e000]", "endpoints-failed"},
	} {
		for _, balancer := range ax.Balancers() {
			for _, affinity := range []time.Duration{0, time.Minute} {
				cfg := outlierConfig
				cfg.Failures, cfg.Share = 1, c.share
				o := route.NewOutliers(cfg)
				d := route.NewDecider(route.Config{Outliers: o, Now: func() time.Time { return now }})
				s := cluster(c.endpoints, balancer, affinity, nil)
				reached(d, s) // so that affinities are to endpoints that are ejected afterwards
				for _, n := range c.ejected {
					o.Failed(ax.TCP, host(n), now)
				}
				if got := reached(d, s); got != c.want {
					t.Errorf("%s, affinity %s, %v of %d ejected, share %d: reached %s, want %s", balancer, affinity, c.ejected, c.endpoints, c.share, got, c.want)
				}
				var tried []ax.EndpointID
				for i := range c.endpoints {
					if id := fmt.Sprintf("e%03d", i); slices.Contains(slices.Collect(wordsOf(c.want)), id) {
						tried = append(tried, ax.EndpointID(id))
					}
				}
				if got := reached(d, s, tried...); got != c.afterAll {
					t.Errorf("%s, affinity %s, %v of %d ejected, share %d: after %v %s, want %s", balancer, affinity, c.ejected, c.endpoints, c.share, tried, got, c.afterAll)
				}
				var hosts []netip.AddrPort
				for _, n := range c.ejected {
					hosts = append(hosts, host(n))
				}
				if got := eligible(s, route.EjectedElsewhere(cfg, ax.TCP, hosts, time.Now())); got != c.want {
					t.Errorf("%v of %d ejected, share %d: explained %s, want %s", c.ejected, c.endpoints, c.share, got, c.want)
				}
			}
		}
	}
}

// eligible returns the endpoints that may be chosen, as explained.
func eligible(s *route.Snapshot, o *route.Outliers) string {
	_, candidates := route.ExplainOn(s, toService, o)
	var ids []string
	for _, c := range candidates {
		if c.Eligible {
			ids = append(ids, string(c.Endpoint.ID))
		}
	}
	return fmt.Sprint(ids)
}

func wordsOf(list string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := 1; i+4 <= len(list); i += 5 {
			if !yield(list[i : i+4]) {
				return
			}
		}
	}
}

// TestDecideByHealth: what is unhealthy is used only where nothing else is left, what drains not at all.
func TestDecideByHealth(t *testing.T) {
	type state struct{ unhealthy, draining, stale []int }
	for _, c := range []struct {
		state
		want    string
		reasons string // of the candidates, as explained
	}{
		{state{}, "[e000 e001 e002]", "[shared-label shared-label shared-label]"},
		{state{unhealthy: []int{1}}, "[e000 e002]", "[shared-label unhealthy shared-label]"},
		{state{unhealthy: []int{0, 1, 2}}, "[e000 e001 e002]", "[shared-label shared-label shared-label]"},
		{state{draining: []int{1}}, "[e000 e002]", "[shared-label draining shared-label]"},
		{state{draining: []int{0, 1}, unhealthy: []int{2}}, "[e002]", "[draining draining shared-label]"},
		{state{draining: []int{0, 1, 2}}, "draining", "[draining draining draining]"},
		{state{draining: []int{0}, unhealthy: []int{0}, stale: []int{1}}, "[e002]", "[draining stale shared-label]"},
	} {
		s := cluster(3, ax.Random, 0, func(i int, e *ax.Endpoint) {
			if slices.Contains(c.unhealthy, i) {
				e.Health = ax.Health{State: ax.Unhealthy, Reason: "HTTP 503"}
			}
			e.Draining, e.Stale = slices.Contains(c.draining, i), slices.Contains(c.stale, i)
		})
		if got := reached(route.NewDecider(route.Config{}), s); got != c.want {
			t.Errorf("%+v: reached %s, want %s", c.state, got, c.want)
		}
		explained, candidates := route.Explain(s, toService)
		var reasons []ax.Reason
		for _, candidate := range candidates {
			reasons = append(reasons, candidate.Reason)
		}
		if fmt.Sprint(reasons) != c.reasons {
			t.Errorf("%+v: explained %v, want %s", c.state, reasons, c.reasons)
		}
		if (explained.Verdict == ax.Allow) != (c.want[0] == '[') {
			t.Errorf("%+v: explained %+v", c.state, explained)
		}
	}
}

// TestNothingIsWell: of an unhealthy endpoint and an ejected one, neither comes first.
func TestNothingIsWell(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for n, want := range map[int]string{2: "[e000 e001]", 3: "[e002]"} {
		cfg := outlierConfig
		cfg.Failures = 1
		o := route.NewOutliers(cfg)
		s := cluster(n, ax.Random, 0, func(i int, e *ax.Endpoint) {
			if i == 0 {
				e.Health.State = ax.Unhealthy
			}
		})
		d := route.NewDecider(route.Config{Outliers: o, Now: func() time.Time { return now }})
		o.Failed(ax.TCP, host(1), now)
		if got := reached(d, s); got != want {
			t.Errorf("of %d, one unhealthy and one ejected: reached %s, want %s", n, got, want)
		}
		if got := eligible(s, route.EjectedElsewhere(cfg, ax.TCP, []netip.AddrPort{host(1)}, time.Now())); got != want {
			t.Errorf("of %d, one unhealthy and one ejected: explained %s, want %s", n, got, want)
		}
	}
}
