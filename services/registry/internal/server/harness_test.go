package server

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"appswitch.io/services/registry/internal/store/etcdstore"
	"appswitch.io/services/registry/internal/store/memstore"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// eachStore runs a test on both stores.
func eachStore(t *testing.T, test func(t *testing.T, st store.Store)) {
	t.Run("mem", func(t *testing.T) {
		st := memstore.New()
		runStore(t, st)
		test(t, st)
	})
	t.Run("etcd", func(t *testing.T) {
		st, err := etcdstore.New(etcdstore.Config{Dir: t.TempDir(), UnsafeNoFsync: true, Log: logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		runStore(t, st)
		test(t, st)
	})
}

func memory(t *testing.T) *memstore.Store {
	st := memstore.New()
	runStore(t, st)
	return st
}

func runStore(t *testing.T, st store.Store) { run(t, st.Run) }

// run runs f until the test ends and makes sure that it ends well.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("run does not end")
		}
	})
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

type harness struct {
	srv *Server
	registryv1.RegistryServiceClient
}

type option func(*Config)

// serve runs a server on the store and returns it with a client.
func serve(t *testing.T, st store.Store, opts ...option) *harness {
	t.Helper()
	cfg := Config{
		Store: st, Pool: netip.MustParsePrefix("198.18.0.0/15"), ClaimTTL: time.Hour, LeaseTTL: 10 * time.Second,
		Log: logger(t), Metrics: prometheus.NewRegistry(),
	}
	for _, o := range opts {
		o(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, srv.Run)
	grpcServer, err := rpc.NewServer(rpc.ServerConfig{Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	registryv1.RegisterRegistryServiceServer(grpcServer, srv)
	l, dial := rpc.Pipe()
	run(t, func(ctx context.Context) error { return rpc.Serve(ctx, grpcServer, l) })
	conn, err := dial(rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &harness{srv: srv, RegistryServiceClient: registryv1.NewRegistryServiceClient(conn)}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Fatalf("error %v, want %s", err, want)
	}
}

// The records of the tests.

func node(name, ip string) ax.Node {
	return ax.Node{Name: ax.NodeName(name), Cluster: "appswitch", Addr: netip.MustParseAddr(ip)}
}

func app(id, on, ip string) ax.App {
	return ax.App{ID: ax.AppID(id), Name: "<uuid>", Node: ax.NodeName(on), Cluster: "appswitch", Addr: netip.MustParseAddr(ip), Labels: ax.DefaultLabels()}
}

func endpoint(appID, on, service, host string) ax.Endpoint {
	s, h := netip.MustParseAddrPort(service), netip.MustParseAddrPort(host)
	return ax.Endpoint{
		ID: ax.MakeEndpointID(ax.AppID(appID), ax.TCP, s, h.Port()), App: ax.AppID(appID), Node: ax.NodeName(on), Cluster: "appswitch",
		Proto: ax.TCP, Service: s, Host: h, Labels: ax.DefaultLabels(),
	}
}

func (h *harness) grant(t *testing.T, n ax.Node, ttl time.Duration) int64 {
	t.Helper()
	resp, err := h.GrantLease(soon(t), &registryv1.GrantLeaseRequest{Node: axpb.Node(n), Ttl: durationpb.New(ttl)})
	if err != nil {
		t.Fatalf("grant: %v", err)
	}
	if resp.GetLeaseId() == 0 || resp.GetTtl().AsDuration() != ttl {
		t.Fatalf("grant: %v, want a lease of %s", resp, ttl)
	}
	return resp.GetLeaseId()
}

// write puts values (and deletes keys, given as changes) in one transaction, and waits until the copy has it.
func (h *harness) write(t *testing.T, lease int64, what ...any) int64 {
	t.Helper()
	resp, err := h.Write(soon(t), &registryv1.WriteRequest{LeaseId: lease, Changes: changesOf(what...)})
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	eventually(t, "the copy has the write", func() bool { _, r := h.srv.table.at(); return int64(r) >= resp.GetRevision() })
	return resp.GetRevision()
}

func changesOf(what ...any) []*registryv1.Change {
	var out []*registryv1.Change
	for _, w := range what {
		if c, ok := w.(*registryv1.Change); ok {
			out = append(out, c)
		} else {
			out = append(out, axpb.Put(w))
		}
	}
	return out
}

// keys lists the table as "kind/key", without claims unless they are asked for.
func (h *harness) keys(t *testing.T, kinds ...registryv1.Kind) []string {
	t.Helper()
	resp, err := h.List(soon(t), &registryv1.ListRequest{Kinds: kinds})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	var out []string
	for _, p := range resp.GetRecords() {
		r, err := axpb.RecordFrom(p)
		if err != nil || p.GetRevision() <= 0 || p.GetRevision() > resp.GetRevision() {
			t.Fatalf("list at %d: record %v, error %v", resp.GetRevision(), p, err)
		}
		out = append(out, recordID{r.Kind, r.Key}.storeKey())
	}
	return out
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// watching is a watch opened by a test.
type openWatch struct {
	stream grpc.ServerStreamingClient[registryv1.WatchResponse]
	cancel context.CancelFunc
}

func (h *harness) watch(t *testing.T, req *registryv1.WatchRequest) openWatch {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	stream, err := h.Watch(ctx, req)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	return openWatch{stream: stream, cancel: cancel}
}

func (w openWatch) next(t *testing.T) *registryv1.WatchResponse {
	t.Helper()
	m, err := w.stream.Recv()
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	return m
}

// list reads a complete list.
func (w openWatch) list(t *testing.T) (changes []*registryv1.Change, last *registryv1.WatchResponse) {
	t.Helper()
	for {
		m := w.next(t)
		if !m.GetList() {
			t.Fatalf("got %v, want a list", m)
		}
		changes = append(changes, m.GetChanges()...)
		if m.GetComplete() {
			return changes, m
		}
	}
}

// names writes changes as "+key" and "-key".
func names(t *testing.T, changes []*registryv1.Change) []string {
	t.Helper()
	var out []string
	for _, c := range changes {
		r, err := axpb.RecordKeyFrom(c.GetDelete())
		sign := "-"
		if c.GetPut() != nil {
			r, err = axpb.RecordFrom(c.GetPut())
			sign = "+"
		}
		if err != nil {
			t.Fatalf("change %v: %v", c, err)
		}
		out = append(out, sign+recordID{r.Kind, r.Key}.storeKey())
	}
	return out
}
