package publish

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPutAndDrop(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.start()
		start := time.Now()
		g.PutApp(app(1))
		g.PutEndpoint(endpoint(1))
		g.PutEndpoint(endpoint(2))
		g.expect("a1 e1 e2")
		g.expectStats(Stats{LeaseAlive: true})
		g.DropEndpoint("e1")
		g.DropEndpoint("never put")
		g.expect("a1 e2")
		g.DropApp("a1")
		g.DropEndpoint("e2")
		g.expect("")
		if d := time.Since(start); d != 0 {
			t.Errorf("something waited for %s", d)
		}
		g.registry.transactions()
		g.PutEndpoint(endpoint(1))
		synctest.Wait()
		g.PutEndpoint(endpoint(1)) // as it is
		changed := endpoint(1)
		changed.Labels = ax.Labels{"role": "other"}
		synctest.Wait()
		g.PutEndpoint(changed)
		synctest.Wait()
		if got := g.registry.transactions(); !slices.Equal(got, []string{"+e1", "+e1"}) {
			t.Errorf("transactions %q, want two", got)
		}
	})
}

func TestTransactionsAreBounded(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		for i := range 300 {
			g.PutEndpoint(endpoint(i))
		}
		g.expectStats(Stats{Pending: 300})
		g.start()
		g.expectStats(Stats{LeaseAlive: true})
		var sizes []int
		for _, txn := range g.registry.transactions() {
			sizes = append(sizes, len(strings.Fields(txn)))
		}
		if !slices.Equal(sizes, []int{128, 128, 44}) {
			t.Errorf("transactions of %d changes", sizes)
		}
	})
}

// TestOrder changes its mind while a transaction is under way.
func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes string // "+": put, "-": drop
		table   string
	}{
		{"put", "+", "e1 e2"},
		{"drop", "-", "e1"},
		{"dropped and put again", "-+", "e1 e2"},
		{"put and dropped", "+-", "e1"},
		{"back and forth, there at last", "-+-+-+", "e1 e2"},
		{"back and forth, gone at last", "+-+-+-", "e1"},
	} {
		for _, inTable := range []bool{false, true} {
			bubble(t, Config{}, func(g *rig) {
				g.start()
				if inTable {
					g.PutEndpoint(endpoint(2))
					synctest.Wait()
				}
				release := make(chan struct{})
				g.registry.set(func(r *registry) {
					r.before = func(context.Context, string) error {
						<-release
						return nil
					}
				})
				g.PutEndpoint(endpoint(1))
				synctest.Wait()
				version := endpoint(2)
				for _, op := range c.changes {
					if op == '+' {
						version.Name += "x" // another one each time
						g.PutEndpoint(version)
					} else {
						g.DropEndpoint("e2")
					}
				}
				g.registry.set(func(r *registry) { r.before = nil })
				close(release)
				g.expect(c.table)
				if put := g.registry.records["e2"].put; put != nil {
					if got, err := axpb.EndpointFrom(put.GetPut().GetEndpoint()); err != nil || got.Name != version.Name {
						t.Errorf("%s: the table has version %q, %v; want %q", c.name, got.Name, err, version.Name)
					}
				}
				g.expectStats(Stats{LeaseAlive: true})
				if g.queue.Len() != len(g.queued) || len(g.queued) != 0 {
					t.Errorf("%s: %d queued", c.name, g.queue.Len())
				}
			})
		}
	}
}

// TestComingAndGoingLeavesNothing drops what was never sent.
func TestComingAndGoingLeavesNothing(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		for i := range 10000 {
			g.PutEndpoint(endpoint(i))
			g.DropEndpoint(endpoint(i).ID)
		}
		if n := len(g.values) + len(g.sent) + len(g.queued) + g.queue.Len(); n != 0 {
			t.Errorf("%d things remain", n)
		}
		g.start()
		if got := g.registry.transactions(); len(got) > 0 {
			t.Errorf("transactions %q", got)
		}
	})
}

func TestRefusedRecord(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		bad := endpoint(2)
		bad.Host = netip.AddrPort{}
		g.PutEndpoint(endpoint(1))
		g.PutEndpoint(bad)
		g.PutEndpoint(endpoint(3))
		g.start()
		g.expect("e1 e3")
		g.expectStats(Stats{LeaseAlive: true})
		if log := g.log.String(); !strings.Contains(log, "refuses") || !strings.Contains(log, "key=e2") {
			t.Errorf("log: %s", log)
		}
		if n := testutil.ToFloat64(g.Publisher.metrics.refused); n != 1 {
			t.Errorf("%v refused records are counted", n)
		}
		g.PutEndpoint(endpoint(2)) // a good one
		g.expect("e1 e2 e3")
		g.PutEndpoint(bad) // the good one stays until it is dropped
		g.expect("e1 e2 e3")
		g.DropEndpoint("e2")
		g.expect("e1 e3")
	})
}

func TestErrorsThatLeaveTheLeaseAlone(t *testing.T) {
	for _, code := range []codes.Code{codes.Aborted, codes.ResourceExhausted, codes.PermissionDenied} {
		bubble(t, Config{}, func(g *rig) {
			g.start()
			g.registry.set(func(r *registry) {
				r.before = func(_ context.Context, method string) error {
					if method == "Write" {
						return status.Error(code, "not now")
					}
					return nil
				}
			})
			g.PutEndpoint(endpoint(1))
			time.Sleep(30 * time.Second)
			g.expect("")
			g.expectStats(Stats{LeaseAlive: true, Pending: 1})
			if n := strings.Count(g.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%s: %d warnings: %s", code, n, g.log)
			}
			g.registry.set(func(r *registry) { r.before = nil })
			time.Sleep(MaxBackoff)
			g.expect("e1")
			if g.registry.grants != 1 {
				t.Errorf("%s: %d leases, want the first to be kept", code, g.registry.grants)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		for name, c := range map[string]struct {
			cfg  Config
			deps Deps
		}{
			"no client":       {Config{Node: node}, Deps{Log: g.deps.Log, Metrics: g.deps.Metrics}},
			"no log":          {Config{Node: node}, Deps{Client: g.deps.Client, Metrics: g.deps.Metrics}},
			"no metrics":      {Config{Node: node}, Deps{Client: g.deps.Client, Log: g.deps.Log}},
			"no node":         {Config{}, g.deps},
			"short lease":     {Config{Node: node, TTL: MinTTL - 1}, g.deps},
			"long lease":      {Config{Node: node, TTL: MaxTTL + 1}, g.deps},
			"metrics in use":  {Config{Node: node}, g.deps},
			"negative lease":  {Config{Node: node, TTL: -1}, g.deps},
			"node no address": {Config{Node: ax.Node{Name: "n", Cluster: "c"}}, g.deps},
		} {
			if _, err := New(c.cfg, c.deps); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}
