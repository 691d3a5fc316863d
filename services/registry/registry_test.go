package registry

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a registry behind gRPC, as a daemon does. stop ends it early.
func start(t testing.TB, cfg Config) (client registryv1.RegistryServiceClient, stop func()) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	svc, err := New(cfg, Deps{Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	svc.Register(server)
	l, dial := rpc.Pipe()
	stopService, stopServer := run(t, svc.Run), run(t, func(ctx context.Context) error { return rpc.Serve(ctx, server, l) })
	conn, err := dial(rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return registryv1.NewRegistryServiceClient(conn), func() { stopServer(); stopService() }
}

func run(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("run does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

func embedded(t testing.TB) Config {
	cfg := DefaultConfig()
	cfg.StateDir, cfg.EtcdUnsafeNoFsync = t.TempDir(), true
	return cfg
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func policy(name string) *registryv1.WriteRequest {
	return &registryv1.WriteRequest{Changes: []*registryv1.Change{axpb.Put(ax.Policy{Name: name, Action: ax.PolicyDeny})}}
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for err := f(); err != nil; err = f() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type policies chan []string

func (p policies) Replace(t *watch.Table) { p <- names(t) }

func (p policies) Apply(e watch.Event) {
	for _, c := range e.Changes {
		p <- []string{c.Key}
	}
}

func names(t *watch.Table) []string {
	out := []string{}
	for name := range t.Policies {
		out = append(out, name)
	}
	return out
}

// Two stateless registries in front of one etcd, which is away at first, comes, restarts and goes: calls fail with
// UNAVAILABLE meanwhile, a watcher keeps its stream throughout, and nothing is lost.
func TestEtcdComesAndGoes(t *testing.T) {
	etcd := DefaultConfig()
	etcd.StateDir, etcd.EtcdListen = t.TempDir(), netip.MustParseAddr("127.0.0.1")
	etcd.EtcdClientPort, etcd.EtcdPeerPort = freePort(t), freePort(t)
	external := DefaultConfig()
	external.EtcdEndpoints = []string{netip.AddrPortFrom(etcd.EtcdListen, etcd.EtcdClientPort).String()}
	external.StateDir = ""
	client, _ := start(t, external)
	other, _ := start(t, external)

	_, err := client.Write(t.Context(), policy("early"))
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("write without etcd: %v, want UNAVAILABLE", err)
	}
	seen := make(policies, 64)
	w, err := watch.New(watch.Config{Service: "test", Client: other, Handler: seen, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w.Run)

	_, stop := start(t, etcd)
	write := func(name string) {
		t.Helper()
		eventually(t, "write "+name, func() error {
			_, err := client.Write(t.Context(), policy(name))
			return err
		})
	}
	want := func(name string) {
		t.Helper()
		deadline := time.After(40 * time.Second)
		for {
			select {
			case got := <-seen:
				for _, n := range got {
					if n == name {
						return
					}
				}
			case <-deadline:
				t.Fatalf("the watcher has not seen %s", name)
			}
		}
	}
	write("first")
	want("first")
	stop()
	if _, err := client.Write(t.Context(), policy("between")); status.Code(err) != codes.Unavailable {
		t.Fatalf("write while etcd is away: %v, want UNAVAILABLE", err)
	}
	if !w.Status().Connected {
		t.Error("the watcher lost its stream because etcd went away")
	}
	start(t, etcd)
	write("second")
	want("second")
	resp, err := other.List(t.Context(), &registryv1.ListRequest{Kinds: []registryv1.Kind{registryv1.Kind_KIND_POLICY}})
	if err != nil || len(resp.GetRecords()) < 2 {
		t.Errorf("after the restart: %v, error %v", resp, err)
	}
}

func TestRunFailsOnlyWhenEtcdCantRun(t *testing.T) {
	cfg := embedded(t)
	client, _ := start(t, cfg)
	eventually(t, "write", func() error { _, err := client.Write(t.Context(), policy("p")); return err })
	second, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("second registry in one directory: %v, want an error that names --state-dir", err)
	}
}

func TestConfig(t *testing.T) {
	fresh := func(args ...string) (*Config, error) {
		cfg := DefaultConfig()
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		cfg.Flags(fs)
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		return &cfg, cfg.Validate()
	}
	cfg, err := fresh("--etcd-endpoints=10.0.0.1:2379,http://10.0.0.2:2379", "--ip-pool=10.9.0.0/16", "--claim-ttl=5m", "--lease-ttl=3s")
	if err != nil || len(cfg.EtcdEndpoints) != 2 || cfg.IPPool.String() != "10.9.0.0/16" || cfg.ClaimTTL != 5*time.Minute || cfg.LeaseTTL != 3*time.Second {
		t.Errorf("config %+v, error %v", cfg, err)
	}
	if cfg, err := fresh("--etcd-listen=10.0.0.1", "--state-dir=/x"); err != nil || cfg.EtcdClientPort != 6662 || cfg.EtcdPeerPort != 6663 {
		t.Errorf("config %+v, error %v", cfg, err)
	}
	for _, c := range [][]string{
		{"--etcd-endpoints=10.0.0.1"}, {"--etcd-endpoints=10.0.0.1:1", "--etcd-listen=10.0.0.1"}, {"--state-dir="},
		{"--etcd-listen=10.0.0.1", "--etcd-client-port=6663"}, {"--ip-pool=10.0.0.0/31"}, {"--claim-ttl=0s"}, {"--lease-ttl=1s"},
	} {
		if cfg, err := fresh(c...); err == nil || !strings.Contains(err.Error(), "--") {
			t.Errorf("%q: config %+v, error %v; want one that names the option", c, cfg, err)
		}
	}
}

// BenchmarkWriteToWatch measures from a call of Write to the change at a watcher.
func BenchmarkWriteToWatch(b *testing.B) {
	for name, noFsync := range map[string]bool{"fsync": false, "no-fsync": true} {
		b.Run(name, func(b *testing.B) {
			cfg := embedded(b)
			cfg.EtcdUnsafeNoFsync = noFsync
			client, _ := start(b, cfg)
			stream, err := client.Watch(b.Context(), &registryv1.WatchRequest{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := client.Write(b.Context(), policy("p")); err != nil {
					b.Fatal(err)
				}
				if _, err := stream.Recv(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
