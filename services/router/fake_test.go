package router_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/router"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is a service table that keeps the contract of Watch: a list in parts, then changes, resumed by revision
// unless it has forgotten them.
type registry struct {
	registryv1.UnimplementedRegistryServiceServer

	mu        sync.Mutex // guards all below
	records   map[string]*registryv1.Record
	log       []*registryv1.WatchResponse // one for each revision since forgotten
	forgotten int64
	revision  int64
	down      bool
	withhold  bool          // the end of lists
	changed   chan struct{} // closed and replaced at every change
	lists     int           // lists begun
}

func newRegistry() *registry {
	return &registry{records: map[string]*registryv1.Record{}, changed: make(chan struct{}), revision: 1, forgotten: 1}
}

func key(c *registryv1.Change) string {
	if d := c.GetDelete(); d != nil {
		return d.GetKind().String() + "/" + d.GetKey()
	}
	r, err := axpb.RecordKeyOf(c.GetPut())
	if err != nil {
		panic(err)
	}
	return r.Kind.String() + "/" + r.Key
}

// write is one transaction.
func (r *registry) write(changes ...*registryv1.Change) ax.Revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revision++
	for _, c := range changes {
		if c.GetPut() != nil {
			r.records[key(c)] = c.GetPut()
		} else {
			delete(r.records, key(c))
		}
	}
	r.log = append(r.log, &registryv1.WatchResponse{TableId: "t", Revision: r.revision, Complete: true, Changes: changes})
	r.wake()
	return ax.Revision(r.revision)
}

func (r *registry) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// set changes the behaviour under the lock.
func (r *registry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.wake()
}

func (r *registry) listed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists
}

// Watch implements the registry's gRPC service.
func (r *registry) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	r.mu.Lock()
	seen := req.GetRevision()
	resume := req.GetTableId() == "t" && seen >= r.forgotten
	r.mu.Unlock()
	for {
		r.mu.Lock()
		if r.down {
			r.mu.Unlock()
			return status.Error(codes.Unavailable, "down")
		}
		if resume && seen < r.forgotten { // it was too slow
			r.mu.Unlock()
			return status.Error(codes.ResourceExhausted, "resume")
		}
		changed := r.changed
		var out []*registryv1.WatchResponse
		if resume {
			for _, e := range r.log {
				if e.GetRevision() > seen {
					out = append(out, e)
				}
			}
		} else {
			out = r.list()
			resume = !r.withhold
		}
		if resume {
			seen = r.revision
		}
		r.mu.Unlock()
		for _, m := range out {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// list is the table, one record to a message; the caller holds the lock.
func (r *registry) list() []*registryv1.WatchResponse {
	r.lists++
	var out []*registryv1.WatchResponse
	for _, record := range r.records {
		out = append(out, &registryv1.WatchResponse{
			TableId: "t", Revision: r.revision, List: true, Changes: []*registryv1.Change{{Op: &registryv1.Change_Put{Put: record}}},
		})
	}
	if !r.withhold {
		out = append(out, &registryv1.WatchResponse{TableId: "t", Revision: r.revision, List: true, Complete: true})
	}
	return out
}

func put(v any) *registryv1.Change {
	record := &registryv1.Record{}
	switch v := v.(type) {
	case ax.Node:
		record.Value = &registryv1.Record_Node{Node: axpb.Node(v)}
	case ax.App:
		record.Value = &registryv1.Record_App{App: axpb.App(v)}
	case ax.Endpoint:
		record.Value = &registryv1.Record_Endpoint{Endpoint: axpb.Endpoint(v)}
	case ax.VirtualService:
		record.Value = &registryv1.Record_VirtualService{VirtualService: axpb.VirtualService(v)}
	case ax.Policy:
		record.Value = &registryv1.Record_Policy{Policy: axpb.Policy(v)}
	case ax.Claim:
		record.Value = &registryv1.Record_AddressClaim{AddressClaim: axpb.Claim(v)}
	default:
		panic(fmt.Sprintf("%T is no record", v))
	}
	return &registryv1.Change{Op: &registryv1.Change_Put{Put: record}}
}

func del(v any) *registryv1.Change {
	r, err := axpb.RecordKeyOf(put(v).GetPut())
	if err != nil {
		panic(err)
	}
	return &registryv1.Change{Op: &registryv1.Change_Delete{Delete: &registryv1.RecordKey{Kind: r.Kind, Key: r.Key}}}
}

func endpoint(i int, service string, labels ax.Labels) ax.Endpoint {
	addr := netip.MustParseAddrPort(service)
	e := ax.Endpoint{
		App: ax.AppID(fmt.Sprintf("%08x", i)), Node: "n1", Cluster: "c", Proto: ax.TCP, Service: addr, Labels: labels,
		Host: netip.AddrPortFrom(netip.MustParseAddr("10.0.2.1"), uint16(40000+i%20000)),
	}
	e.ID = ax.MakeEndpointID(e.App, e.Proto, e.Service, e.Host.Port())
	return e
}

// rig is a router between a fake registry and a client, each connection through a pipe.
type rig struct {
	registry *registry
	service  *router.Service
	metrics  *prometheus.Registry
	client   routerv1.RouterServiceClient
	stop     func() // stops the router's Run and waits; the server goes on
}

func newRig(t testing.TB, registry *registry, configure func(*router.Config)) *rig {
	t.Helper()
	cfg := router.DefaultConfig()
	if configure != nil {
		configure(&cfg)
	}
	r := &rig{registry: registry, metrics: prometheus.NewRegistry()}
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("servers: %v", err)
		}
	})
	serve := func(register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
		server, err := rpc.NewServer(rpc.ServerConfig{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		register(server)
		l, dial := rpc.Pipe()
		g.Go(func() error { return rpc.Serve(ctx, server, l) })
		conn, err := dial(rpc.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	upstream := serve(func(s grpc.ServiceRegistrar) { registryv1.RegisterRegistryServiceServer(s, r.registry) })
	var err error
	r.service, err = router.New(cfg, router.Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: r.metrics, Registry: registryv1.NewRegistryServiceClient(upstream),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.client = routerv1.NewRouterServiceClient(serve(r.service.Register))
	runCtx, stopRun := context.WithCancel(ctx)
	ran := make(chan struct{})
	g.Go(func() error {
		defer close(ran)
		if err := r.service.Run(runCtx); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	r.stop = func() {
		stopRun()
		<-ran
	}
	t.Cleanup(r.stop)
	return r
}

// node follows the routes as a node agent does.
type node struct {
	t        testing.TB
	stream   grpc.ServerStreamingClient[routerv1.WatchRoutesResponse]
	cancel   context.CancelFunc
	reader   axpb.RoutesReader
	snapshot *route.Snapshot
	deltas   []route.Delta
	age      time.Duration // as last told
}

func (r *rig) node(t testing.TB) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	stream, err := r.client.WatchRoutes(ctx, &routerv1.WatchRoutesRequest{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return &node{t: t, stream: stream, cancel: cancel, snapshot: route.Empty()}
}

// next receives one delta and applies it.
func (n *node) next() route.Delta {
	n.t.Helper()
	d, err := n.receive()
	if err != nil {
		n.t.Fatal(err)
	}
	return d
}

func (n *node) receive() (route.Delta, error) {
	for {
		m, err := n.stream.Recv()
		if err != nil {
			return route.Delta{}, err
		}
		n.age = m.GetAge().AsDuration()
		d, complete, err := n.reader.Read(m)
		if err != nil {
			return route.Delta{}, err
		}
		if complete {
			n.snapshot = n.snapshot.Apply(d)
			n.deltas = append(n.deltas, d)
			return d, nil
		}
	}
}

// reach receives until the snapshot is that of a revision.
func (n *node) reach(r ax.Revision) {
	n.t.Helper()
	for n.snapshot.Revision() < r {
		n.next()
	}
}

// services writes the services of a snapshot as "1.1.1.1:80 0000000a 0000000b".
func services(s *route.Snapshot) []string {
	var out []string
	for _, svc := range s.Full().Upserts {
		text := svc.Key.Addr.String()
		for _, e := range svc.Endpoints {
			text += " " + string(e.App)
		}
		out = append(out, text)
	}
	return out
}

func expect(t *testing.T, s *route.Snapshot, want ...string) {
	t.Helper()
	if got := services(s); !slices.Equal(got, want) {
		t.Errorf("services %q, want %q", got, want)
	}
}

// metric returns the value of a counter or gauge.
func (r *rig) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// eventually waits for a condition of which nothing tells when it becomes true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen in time", what)
		}
	}
}
