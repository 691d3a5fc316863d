package routes

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/nodeagent/internal/grpctest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// router says to each stream what the test tells it to say.
type router struct {
	routerv1.UnimplementedRouterServiceServer

	mu      sync.Mutex
	say     chan *routerv1.WatchRoutesResponse // to the stream that is open; nil ends it
	streams int
	nodes   []string
}

func (r *router) WatchRoutes(req *routerv1.WatchRoutesRequest, stream grpc.ServerStreamingServer[routerv1.WatchRoutesResponse]) error {
	r.mu.Lock()
	r.streams++
	r.nodes = append(r.nodes, req.GetNode())
	r.mu.Unlock()
	for {
		select {
		case msg := <-r.say:
			if msg == nil {
				return status.Error(codes.ResourceExhausted, "too slow")
			}
			if err := stream.Send(msg); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (r *router) opened() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streams
}

// rig is a watcher with its router.
type rig struct {
	*Watcher
	t       *testing.T
	router  *router
	server  *grpctest.Server
	log     *bytes.Buffer
	metrics *prometheus.Registry
	stop    func() // ends Run and waits for it
}

func bubble(t *testing.T, test func(t *testing.T, g *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{t: t, router: &router{say: make(chan *routerv1.WatchRoutesResponse)}, log: &bytes.Buffer{}, metrics: prometheus.NewRegistry()}
		var conn *grpc.ClientConn
		g.server, conn = grpctest.Start(t, func(s grpc.ServiceRegistrar) { routerv1.RegisterRouterServiceServer(s, g.router) })
		var err error
		if g.Watcher, err = New(Deps{
			Client: routerv1.NewRouterServiceClient(conn), Log: slog.New(slog.NewTextHandler(g.log, nil)), Metrics: g.metrics,
		}, "n1"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		start := func() { ended <- g.Run(ctx) }
		g.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		defer func() { g.stop() }()
		go start()
		synctest.Wait()
		test(t, g)
	})
}

// say sends messages on the open stream.
func (g *rig) say(messages ...*routerv1.WatchRoutesResponse) {
	g.t.Helper()
	for _, m := range messages {
		select {
		case g.router.say <- m:
		case <-time.After(time.Hour):
			g.t.Fatal("no stream is open")
		}
	}
	synctest.Wait()
}

// expect compares the addresses of the services in the snapshot.
func (g *rig) expect(revision ax.Revision, services ...string) {
	g.t.Helper()
	s := g.Snapshot()
	if s == nil {
		g.t.Fatal("there is no snapshot")
	}
	var got []string
	for _, svc := range s.Full().Upserts {
		got = append(got, svc.Key.Addr.String())
	}
	if s.Revision() != revision || !slices.Equal(got, services) {
		g.t.Errorf("snapshot at revision %d has %q, want %d and %q", s.Revision(), got, revision, services)
	}
}

func (g *rig) expectContact(connected bool, age time.Duration) {
	g.t.Helper()
	if g.Connected() != connected || g.Age() != age {
		g.t.Errorf("connected %v, age %s; want %v, %s", g.Connected(), g.Age(), connected, age)
	}
}

func services(addrs ...string) (out []route.Service) {
	for _, a := range addrs {
		addr := netip.MustParseAddrPort(a)
		out = append(out, route.Service{
			Key: route.ServiceKey{Proto: ax.TCP, Addr: addr}, Balancer: ax.Random,
			Endpoints: []*ax.Endpoint{{
				ID: ax.EndpointID(a), App: "a1", Node: "n2", Cluster: "c", Proto: ax.TCP, Service: addr,
				Host: netip.MustParseAddrPort("10.0.0.2:40000"), Labels: ax.DefaultLabels(),
			}},
		})
	}
	return out
}

// messages writes a delta in two messages.
func messages(t *testing.T, d route.Delta) (first, second *routerv1.WatchRoutesResponse) {
	t.Helper()
	all := slices.Collect(axpb.Routes(d))
	if len(all) != 1 {
		t.Fatalf("%d messages", len(all))
	}
	half := len(all[0].Upserts) / 2
	first = &routerv1.WatchRoutesResponse{Revision: all[0].Revision, Full: all[0].Full, Upserts: all[0].Upserts[:half]}
	all[0].Full, all[0].Upserts = false, all[0].Upserts[half:]
	return first, all[0]
}

func TestSnapshotAndDeltas(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		first, second := messages(t, route.Delta{Revision: 5, Full: true, Upserts: services("1.1.1.1:80", "1.1.1.2:80")})
		g.say(first)
		if g.Snapshot() != nil || g.Connected() {
			t.Error("half a snapshot is used")
		}
		select {
		case <-g.Ready():
			t.Error("ready with half a snapshot")
		default:
		}
		g.say(second)
		<-g.Ready()
		g.expect(5, "1.1.1.1:80", "1.1.1.2:80")
		g.expectContact(true, 0)

		first, second = messages(t, route.Delta{
			Revision: 6, Upserts: services("1.1.1.3:80", "1.1.1.4:80"), Removes: []route.ServiceKey{{Proto: ax.TCP, Addr: netip.MustParseAddrPort("1.1.1.1:80")}},
		})
		g.say(first)
		g.expect(5, "1.1.1.1:80", "1.1.1.2:80")
		g.say(second)
		g.expect(6, "1.1.1.2:80", "1.1.1.3:80", "1.1.1.4:80")
		if g.router.opened() != 1 || g.router.nodes[0] != "n1" {
			t.Errorf("%d streams, for %q", g.router.opened(), g.router.nodes)
		}
	})
}

func TestSnapshotIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		time.Sleep(3 * time.Second)
		g.expectContact(false, 3*time.Second) // since the start
		_, all := messages(t, route.Delta{Revision: 5, Full: true, Upserts: services("1.1.1.1:80")})
		all.Full = true
		g.say(all)
		g.server.Leave()
		synctest.Wait()
		time.Sleep(time.Hour)
		g.expectContact(false, time.Hour)
		g.expect(5, "1.1.1.1:80")
		g.server.Return()
		time.Sleep(2 * MaxBackoff)
		first, second := messages(t, route.Delta{Revision: 9, Full: true, Upserts: services("2.2.2.1:80", "2.2.2.2:80")})
		g.say(first)
		g.expect(5, "1.1.1.1:80")
		if g.Connected() {
			t.Error("connected while the snapshot is still the old one")
		}
		g.say(nil) // breaks off
		time.Sleep(2 * MaxBackoff)
		g.expect(5, "1.1.1.1:80")
		g.say(first, second)
		g.expect(9, "2.2.2.1:80", "2.2.2.2:80")
		g.expectContact(true, 0)
		<-g.Ready()
		if n := strings.Count(g.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, g.log)
		}
		if n, err := testutil.GatherAndCount(g.metrics); n != 4 || err != nil {
			t.Errorf("%d metrics, %v", n, err)
		}
	})
}

// TestConfirmations has a router that says every few seconds that nothing has changed.
func TestConfirmations(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		_, all := messages(t, route.Delta{Revision: 5, Full: true, Upserts: services("1.1.1.1:80")})
		all.Full = true
		g.say(all)
		first := g.Snapshot()
		for range 100 {
			time.Sleep(5 * time.Second)
			g.expectContact(true, 0)
			g.say(&routerv1.WatchRoutesResponse{Revision: 5, Complete: true, Age: durationpb.New(10 * time.Second)})
			g.expectContact(true, 0)
		}
		if g.Snapshot() != first {
			t.Error("a confirmation makes another snapshot")
		}
		g.say(&routerv1.WatchRoutesResponse{Revision: 7, Complete: true})
		g.expect(7, "1.1.1.1:80")
		if g.router.opened() != 1 {
			t.Errorf("%d streams, want 1", g.router.opened())
		}
		// The router hears no more of the registry.
		g.say(&routerv1.WatchRoutesResponse{Revision: 7, Complete: true, Age: durationpb.New(time.Minute)})
		time.Sleep(time.Second)
		g.expectContact(true, time.Minute+time.Second)
		g.say(&routerv1.WatchRoutesResponse{Revision: 7, Complete: true, Age: durationpb.New(-time.Minute)})
		g.expectContact(true, 0)
		// The router is there, but has nothing to say.
		time.Sleep(IdleTimeout)
		synctest.Wait()
		g.expectContact(false, IdleTimeout)
		time.Sleep(MaxBackoff)
		if g.router.opened() != 2 || !strings.Contains(g.log.String(), "no word from the router") {
			t.Errorf("%d streams, want 2; log: %s", g.router.opened(), g.log)
		}
	})
}

func TestWrongMessages(t *testing.T) {
	_, good := messages(t, route.Delta{Revision: 5, Full: true, Upserts: services("1.1.1.1:80")})
	good.Full = true
	for name, bad := range map[string]*routerv1.WatchRoutesResponse{
		"bad claim":  {Revision: 6, Complete: true, Claims: []string{"x"}},
		"bad upsert": {Revision: 6, Complete: true, Upserts: []*routerv1.Service{{}}},
	} {
		bubble(t, func(t *testing.T, g *rig) {
			g.say(good, bad)
			g.expect(5, "1.1.1.1:80")
			if g.Connected() {
				t.Errorf("%s: still connected", name)
			}
			if !strings.Contains(g.log.String(), "message refused") {
				t.Errorf("%s: log: %s", name, g.log)
			}
			time.Sleep(MaxBackoff)
			g.say(good)
			g.expectContact(true, 0)
		})
	}
	bubble(t, func(t *testing.T, g *rig) {
		g.say(&routerv1.WatchRoutesResponse{Revision: 6, Complete: true})
		if g.Snapshot() != nil {
			t.Error("a delta without a snapshot is used")
		}
		time.Sleep(MaxBackoff)
		g.say(good)
		g.expect(5, "1.1.1.1:80")
	})
}

func TestBackoff(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		ended := make(chan struct{})
		go func() {
			for {
				select {
				case g.router.say <- nil:
				case <-ended:
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		close(ended)
		// At most a second apart; at least 25 ms, and half a second once the waits have grown.
		if n := g.router.opened(); n < 60 || n > 130 {
			t.Errorf("%d streams in a minute", n)
		}
	})
}

func TestSuspect(t *testing.T) {
	decide := func(g *rig) ax.Reason {
		d := route.NewDecider(route.Config{}).Decide(g.Snapshot(), ax.Flow{Labels: ax.DefaultLabels(), Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80")}, nil)
		return d.Reason
	}
	bubble(t, func(t *testing.T, g *rig) {
		g.Suspect("n2")
		stale := services("1.1.1.1:80")
		stale[0].Endpoints[0].Stale = true // with its node failed, it is gone
		_, all := messages(t, route.Delta{Revision: 5, Full: true, Upserts: stale})
		all.Full = true
		g.say(all)
		before := decide(g)
		g.Suspect()
		healed := decide(g)
		g.Suspect("n2")
		if again := decide(g); before == ax.ReasonLabels || healed != ax.ReasonLabels || again != before {
			t.Errorf("suspected %q, healed %q, suspected again %q", before, healed, again)
		}
	})
}

func TestEnds(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		start := time.Now()
		g.stop()
		if d := time.Since(start); d != 0 {
			t.Errorf("the end took %s", d)
		}
	})
	bubble(t, func(t *testing.T, g *rig) {
		g.server.Leave()
		time.Sleep(time.Minute)
		start := time.Now()
		g.stop()
		if d := time.Since(start); d != 0 {
			t.Errorf("the end took %s while the router was away", d)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		for name, c := range map[string]struct {
			deps Deps
			node ax.NodeName
		}{
			"no client":      {Deps{Log: g.deps.Log, Metrics: prometheus.NewRegistry()}, "n"},
			"no log":         {Deps{Client: g.deps.Client, Metrics: prometheus.NewRegistry()}, "n"},
			"no metrics":     {Deps{Client: g.deps.Client, Log: g.deps.Log}, "n"},
			"no node":        {Deps{Client: g.deps.Client, Log: g.deps.Log, Metrics: prometheus.NewRegistry()}, ""},
			"metrics in use": {g.deps, "n"},
		} {
			if _, err := New(c.deps, c.node); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}
