package router_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var zone = ax.DefaultLabels()

func TestSnapshotThenDeltas(t *testing.T) {
	registry := newRegistry()
	registry.write(put(ax.Node{Name: "n1", Addr: netip.MustParseAddr("10.0.2.1"), ReservedPorts: []uint16{6665}}))
	registry.write(put(endpoint(1, "1.1.1.1:80", zone)), put(endpoint(2, "2.2.2.2:80", zone)))
	at := registry.write(put(ax.Claim{Addr: netip.MustParseAddr("1.1.1.9")}))
	r := newRig(t, registry, nil)

	n := r.node(t)
	first := n.next()
	if !first.Full || len(first.Nodes) != 1 || len(first.Claims) != 1 {
		t.Errorf("first delta %+v, want a whole snapshot", first)
	}
	n.reach(at)
	expect(t, n.snapshot, "1.1.1.1:80 00000001", "2.2.2.2:80 00000002")

	at = r.registry.write(put(endpoint(3, "1.1.1.1:80", zone)))
	second := n.next()
	if second.Full || len(second.Upserts) != 1 || second.Revision != at || len(second.Nodes)+len(second.Claims)+len(second.Removes) != 0 {
		t.Errorf("delta %+v, want the one service that changed", second)
	}
	expect(t, n.snapshot, "1.1.1.1:80 00000001 00000003", "2.2.2.2:80 00000002")

	r.registry.write(del(endpoint(2, "2.2.2.2:80", zone)))
	if third := n.next(); len(third.Removes) != 1 || len(third.Upserts) != 0 {
		t.Errorf("delta %+v, want one removal", third)
	}
	at = r.registry.write(put(ax.VirtualService{Name: "v", Addr: netip.MustParseAddr("9.9.9.9"), Balancer: ax.RoundRobin, Backends: []ax.Backend{{Addr: netip.MustParseAddr("1.1.1.1"), Weight: 1}}}))
	n.reach(at)
	expect(t, n.snapshot, "1.1.1.1:80 00000001 00000003", "9.9.9.9:80 00000001 00000003")
	if at = r.registry.write(put(ax.App{ID: "0000000a", Name: "x", Node: "n1", Addr: netip.MustParseAddr("1.1.1.1")})); n.next().Revision != at {
		t.Error("the revision did not move with a change that concerns no route")
	}
	if got := r.metric(t, "appswitch_router_watchers"); got != 1 {
		t.Errorf("%v watchers", got)
	}
	if got := r.metric(t, "appswitch_router_services"); got != 2 {
		t.Errorf("%v services", got)
	}
}

// TestSilentWithoutTable: a router that has not seen the whole table says nothing, for "no routes" would let every
// virtual address through to the outside.
func TestSilentWithoutTable(t *testing.T) {
	registry := newRegistry()
	registry.withhold = true
	at := registry.write(put(endpoint(1, "1.1.1.1:80", zone)))
	r := newRig(t, registry, func(c *router.Config) { c.Confirm = 100 * time.Millisecond })
	n := r.node(t)
	got := make(chan route.Delta, 1)
	go func() {
		defer close(got)
		if d, err := n.receive(); err == nil {
			got <- d
		}
	}()
	eventually(t, "the beginning of a list", func() bool { return r.registry.listed() > 0 })
	select {
	case d := <-got:
		t.Fatalf("received %+v before the table was complete", d)
	case <-time.After(500 * time.Millisecond):
	}
	ctx := context.Background()
	if _, err := r.client.Route(ctx, &routerv1.RouteRequest{Destination: &typev1.SocketAddress{Ip: "1.1.1.1", Port: 80}}); status.Code(err) != codes.Unavailable {
		t.Errorf("Route: %v, want UNAVAILABLE", err)
	}
	if _, err := r.client.Explain(ctx, &routerv1.ExplainRequest{Destination: "1.1.1.1:80"}); status.Code(err) != codes.Unavailable {
		t.Errorf("Explain: %v, want UNAVAILABLE", err)
	}
	if r.service.Ready() {
		t.Error("ready without a table")
	}
	r.registry.set(func() { r.registry.withhold = false })
	if d := <-got; !d.Full || d.Revision != at || len(d.Upserts) != 1 {
		t.Errorf("first delta %+v, want the complete table", d)
	}
}

// TestRegistryAway: without the registry old and new nodes get what was known, are told its age, and learn of nothing
// but the changes when it is back.
func TestRegistryAway(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		t.Run(fmt.Sprint("forgets=", forgets), func(t *testing.T) {
			r := newRig(t, newRegistry(), func(c *router.Config) { c.Confirm = 100 * time.Millisecond })
			at := r.registry.write(put(endpoint(1, "1.1.1.1:80", zone)), put(endpoint(2, "2.2.2.2:80", zone)))
			old := r.node(t)
			old.reach(at)
			r.registry.set(func() { r.registry.down = true })
			at = r.registry.write(put(endpoint(3, "1.1.1.1:80", zone)))

			young := r.node(t)
			if d := young.next(); !d.Full || d.Revision != at-1 {
				t.Errorf("without the registry a new node got %+v", d)
			}
			expect(t, young.snapshot, "1.1.1.1:80 00000001", "2.2.2.2:80 00000002")
			for young.age < 300*time.Millisecond {
				if d := young.next(); !d.Empty() {
					t.Fatalf("a confirmation contains %+v", d)
				}
			}
			resp, err := r.client.Route(context.Background(), &routerv1.RouteRequest{Destination: &typev1.SocketAddress{Ip: "1.1.1.1", Port: 80}})
			if err != nil || resp.GetVerdict() != routerv1.Verdict_VERDICT_ALLOW {
				t.Errorf("Route without the registry: %v, %v", resp, err)
			}
			r.registry.set(func() {
				r.registry.down = false
				if forgets {
					r.registry.log, r.registry.forgotten = nil, r.registry.revision
				}
			})
			for _, n := range []*node{old, young} {
				n.deltas = nil
				n.reach(at)
				for _, d := range n.deltas {
					if d.Full || len(d.Upserts) > 1 {
						t.Errorf("delta %+v, want the one change", d)
					}
				}
				expect(t, n.snapshot, "1.1.1.1:80 00000001 00000003", "2.2.2.2:80 00000002")
			}
		})
	}
}

// bulky is labels that make an endpoint about 8 KB large.
func bulky() ax.Labels {
	l := ax.DefaultLabels()
	for i := range ax.MaxLabels - 1 {
		l[fmt.Sprintf("%063d", i)] = strings.Repeat("v", ax.MaxLabelLength)
	}
	return l
}

// TestSlowNode: what a node misses while it does not receive is merged, and nobody waits for it.
func TestSlowNode(t *testing.T) {
	r := newRig(t, newRegistry(), func(c *router.Config) { c.SendTimeout = 5 * time.Minute })
	r.registry.write(put(endpoint(0, "1.1.1.1:80", bulky())))
	slow, quick := r.node(t), r.node(t)
	slow.next()
	const changes = 200 // of a service that grows to 160 KB: much more than fits into the buffers between
	var at ax.Revision
	for i := range changes {
		e := endpoint(i%20, "1.1.1.1:80", bulky())
		e.Stale = i%40 >= 20
		at = r.registry.write(put(e))
		quick.reach(at)
	}
	slow.deltas = nil
	slow.reach(at)
	if len(slow.deltas) > changes/2 {
		t.Errorf("%d deltas after %d changes were missed", len(slow.deltas), changes)
	}
	if !reflect.DeepEqual(services(slow.snapshot), services(quick.snapshot)) {
		t.Errorf("the slow node has %q, the quick one %q", services(slow.snapshot), services(quick.snapshot))
	}
	if got := r.metric(t, "appswitch_router_deltas_coalesced_total"); got == 0 {
		t.Error("nothing was counted as coalesced")
	}
	if got := r.metric(t, "appswitch_router_watchers_cut_off_total"); got != 0 {
		t.Errorf("%v nodes were cut off", got)
	}
}

// TestStuckNode: a node that takes nothing is cut off, and can start over.
func TestStuckNode(t *testing.T) {
	r := newRig(t, newRegistry(), func(c *router.Config) { c.SendTimeout = 200 * time.Millisecond })
	r.registry.write(put(endpoint(0, "1.1.1.1:80", bulky())))
	stuck, quick := r.node(t), r.node(t)
	stuck.next()
	var at ax.Revision
	for i := 1; r.metric(t, "appswitch_router_watchers_cut_off_total") == 0; i++ {
		e := endpoint(i%20, "1.1.1.1:80", bulky())
		e.Stale = i%40 >= 20
		at = r.registry.write(put(e))
		quick.reach(at)
	}
	var err error
	for err == nil {
		_, err = stuck.receive()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the stuck node got %v, want RESOURCE_EXHAUSTED", err)
	}
	again := r.node(t)
	again.reach(at)
	if !reflect.DeepEqual(services(again.snapshot), services(quick.snapshot)) {
		t.Errorf("after starting over it has %q, want %q", services(again.snapshot), services(quick.snapshot))
	}
	eventually(t, "the end of the stuck stream", func() bool { return r.metric(t, "appswitch_router_watchers") == 2 })
}

func TestStop(t *testing.T) {
	r := newRig(t, newRegistry(), nil)
	at := r.registry.write(put(endpoint(1, "1.1.1.1:80", zone)))
	n := r.node(t)
	n.reach(at)
	r.stop()
	for {
		if _, err := n.receive(); err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the stream ended with %v, want UNAVAILABLE", err)
			}
			break
		}
	}
	eventually(t, "the end of the stream", func() bool { return r.metric(t, "appswitch_router_watchers") == 0 })
}

// TestNodeLeaves: a node that hangs up frees its place at once.
func TestNodeLeaves(t *testing.T) {
	r := newRig(t, newRegistry(), nil)
	r.registry.write(put(endpoint(1, "1.1.1.1:80", zone)))
	n := r.node(t)
	n.next()
	n.cancel()
	eventually(t, "the end of the stream", func() bool { return r.metric(t, "appswitch_router_watchers") == 0 })
}

// TestLargeTable: a snapshot of many messages arrives whole.
func TestLargeTable(t *testing.T) {
	r := newRig(t, newRegistry(), nil)
	var at ax.Revision
	for i := range 100 {
		var changes []*registryv1.Change
		for j := range 100 {
			changes = append(changes, put(endpoint(i*100+j, fmt.Sprintf("198.18.%d.%d:80", i, j%50), zone)))
		}
		at = r.registry.write(changes...)
	}
	n := r.node(t)
	n.reach(at)
	if got := n.snapshot.Size(); got.Services != 5000 || got.Hosts != 10000 {
		t.Errorf("snapshot of %+v, want 5000 services and 10000 hosts", got)
	}
}

// TestConvergence: whatever happens to the registry, all nodes end with the routes of its table.
func TestConvergence(t *testing.T) {
	r := newRig(t, newRegistry(), nil)
	random := rand.New(rand.NewPCG(1, 1))
	nodes := []*node{r.node(t), r.node(t), r.node(t)}
	alive := map[int]ax.Endpoint{}
	var at ax.Revision
	for step := range 400 {
		if step%50 == 49 { // let the nodes keep up with some of it
			r.registry.set(func() { r.registry.down = false })
			nodes[0].reach(at)
		}
		i := random.IntN(40)
		e := endpoint(i, fmt.Sprintf("1.1.1.%d:80", i%7), zone)
		if random.IntN(3) == 0 {
			at = r.registry.write(del(e))
			delete(alive, i)
		} else {
			at = r.registry.write(put(e))
			alive[i] = e
		}
		switch random.IntN(30) {
		case 0:
			r.registry.set(func() { r.registry.down = true })
		case 1:
			r.registry.set(func() { r.registry.down = false })
		case 2:
			r.registry.set(func() { r.registry.log, r.registry.forgotten = nil, r.registry.revision })
		}
	}
	r.registry.set(func() { r.registry.down = false })
	byService := map[string][]string{}
	for _, e := range alive {
		byService[e.Service.String()] = append(byService[e.Service.String()], string(e.App))
	}
	var want []string
	for service, apps := range byService {
		slices.Sort(apps)
		want = append(want, service+" "+strings.Join(apps, " "))
	}
	slices.Sort(want)
	for _, n := range nodes {
		n.reach(at)
		expect(t, n.snapshot, want...)
	}
}

func TestWatchRoutesWantsNode(t *testing.T) {
	r := newRig(t, newRegistry(), nil)
	stream, err := r.client.WatchRoutes(context.Background(), &routerv1.WatchRoutesRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a node: %v, want INVALID_ARGUMENT", err)
	}
}

func TestConfig(t *testing.T) {
	cfg := router.DefaultConfig()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse([]string{"--dns-domain=example.org"}); err != nil || cfg.DNSDomain != "example.org" || cfg.Validate() != nil {
		t.Errorf("%+v, %v, %v", cfg, err, cfg.Validate())
	}
	cfg.Confirm, cfg.SendTimeout = 0, time.Hour
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "Confirm") || !strings.Contains(err.Error(), "SendTimeout") {
		t.Errorf("Validate: %v", err)
	}
	deps := router.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Registry: registryv1.NewRegistryServiceClient(nil)}
	if _, err := router.New(cfg, deps); err == nil {
		t.Error("New took an invalid configuration")
	}
	if _, err := router.New(router.DefaultConfig(), router.Deps{}); err == nil {
		t.Error("New took nothing for dependencies")
	}
	if _, err := router.New(router.DefaultConfig(), deps); err != nil {
		t.Error(err)
	}
	if _, err := router.New(router.DefaultConfig(), deps); err == nil {
		t.Error("two routers registered the same metrics")
	}
}

// BenchmarkChangeToNode measures the way of one change from the registry through the router to a node's snapshot.
func BenchmarkChangeToNode(b *testing.B) {
	registry := newRegistry()
	for i := range 5000 {
		registry.write(put(endpoint(i, fmt.Sprintf("198.18.%d.%d:80", i/250, i%250), zone)))
	}
	r := newRig(b, registry, nil)
	n := r.node(b)
	n.next()
	e := endpoint(77, "1.1.1.1:80", zone)
	for b.Loop() {
		e.Stale = !e.Stale
		n.reach(registry.write(put(e)))
		registry.set(func() { registry.log = registry.log[len(registry.log)-1:] })
		n.deltas = nil
	}
}
