package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	resolverv1 "appswitch.io/proto/gen/appswitch/resolver/v1"
	"appswitch.io/services/resolver/internal/feed"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(id, name, service string) ax.Endpoint {
	return ax.Endpoint{ID: ax.EndpointID(id), App: "a", Node: "n", Name: name, Proto: ax.TCP,
		Service: netip.MustParseAddrPort(service), Host: netip.MustParseAddrPort("10.0.0.1:40000")}
}

func put(e ax.Endpoint) watch.Change {
	return watch.Change{Kind: registryv1.Kind_KIND_ENDPOINT, Key: string(e.ID), Value: e}
}

func remove(id string) watch.Change {
	return watch.Change{Kind: registryv1.Kind_KIND_ENDPOINT, Key: id}
}

// serve runs the service over a connection in memory.
func serve(t *testing.T, f *feed.Feed) (*Server, resolverv1.ResolverServiceClient) {
	t.Helper()
	s, err := New(f, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(64 << 10)
	g := grpc.NewServer()
	resolverv1.RegisterResolverServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:resolver", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		<-done
	})
	return s, resolverv1.NewResolverServiceClient(conn)
}

func newFeed() *feed.Feed { return feed.New("appswitch.local.", nil, slog.New(slog.DiscardHandler)) }

func TestResolve(t *testing.T) {
	f := newFeed()
	_, client := serve(t, f)
	resolve := func(name string) (*resolverv1.ResolveResponse, codes.Code) {
		r, err := client.Resolve(t.Context(), &resolverv1.ResolveRequest{Name: name})
		return r, status.Code(err)
	}
	if _, code := resolve("web"); code != codes.Unavailable {
		t.Errorf("before the first table: %s", code)
	}
	table := watch.NewTable()
	f.Replace(table)
	f.Apply(watch.Event{Revision: 3, Changes: []watch.Change{
		put(endpoint("e1", "web", "198.18.0.2:443")), put(endpoint("e2", "web", "198.18.0.1:80")), put(endpoint("e3", "web", "198.18.0.2:80")),
	}})
	for _, name := range []string{"web", "WEB", "web.appswitch.local", "web.appswitch.local.", "web."} {
		r, code := resolve(name)
		if code != codes.OK {
			t.Errorf("%s: %s", name, code)
			continue
		}
		got := fmt.Sprint(r.GetRevision(), r.GetName().GetName(), r.GetName().GetIps())
		for _, s := range r.GetName().GetServices() {
			got += fmt.Sprintf(" %s:%d", s.GetIp(), s.GetPort())
		}
		if want := "3web[198.18.0.1 198.18.0.2] 198.18.0.1:80 198.18.0.2:80 198.18.0.2:443"; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]codes.Code{"": codes.InvalidArgument, "nosuch": codes.NotFound, "a b": codes.NotFound} {
		if _, code := resolve(name); code != want {
			t.Errorf("%q: %s, want %s", name, code, want)
		}
	}
}

// follower applies what a watch tells.
type follower struct {
	names    map[string]string
	revision int64
	messages int
}

func (f *follower) receive(t *testing.T, stream grpc.ServerStreamingClient[resolverv1.WatchNamesResponse]) {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.GetFull() {
		f.names = map[string]string{}
	}
	for _, n := range m.GetUpserts() {
		f.names[n.GetName()] = strings.Join(n.GetIps(), " ")
	}
	for _, n := range m.GetRemoves() {
		delete(f.names, n)
	}
	f.revision = m.GetRevision()
	f.messages++
}

func TestWatchNames(t *testing.T) {
	f := newFeed()
	s, client := serve(t, f)
	stream, err := client.WatchNames(t.Context(), &resolverv1.WatchNamesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	table := watch.NewTable()
	table.Revision = 1
	table.Endpoints["e1"] = endpoint("e1", "web", "198.18.0.1:80")
	f.Replace(table)
	known := &follower{}
	known.receive(t, stream)
	if want := map[string]string{"web": "198.18.0.1"}; !maps.Equal(known.names, want) || known.revision != 1 {
		t.Fatalf("knows %v at %d", known.names, known.revision)
	}
	f.Apply(watch.Event{Revision: 2, Changes: []watch.Change{put(endpoint("e2", "api", "198.18.0.2:80")), remove("e1")}})
	known.receive(t, stream)
	if want := map[string]string{"api": "198.18.0.2"}; !maps.Equal(known.names, want) || known.revision != 2 {
		t.Fatalf("knows %v at %d", known.names, known.revision)
	}
	s.Stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after Stop: %v", err)
	}
}

func TestManyNamesComeInSeveralMessages(t *testing.T) {
	f := newFeed()
	_, client := serve(t, f)
	const n = 40_000
	table := watch.NewTable()
	for i := range n {
		id := fmt.Sprint(i)
		table.Endpoints[ax.EndpointID(id)] = endpoint(id, "name-of-some-length-"+id, fmt.Sprintf("198.18.%d.%d:80", i>>8, i&255))
	}
	f.Replace(table)
	stream, err := client.WatchNames(t.Context(), &resolverv1.WatchNamesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	known := &follower{}
	for len(known.names) < n {
		known.receive(t, stream)
	}
	if known.messages < 2 {
		t.Errorf("%d message", known.messages)
	}
}

// TestSlowWatcher: it is cut off, nobody waits for it, and it may come back.
func TestSlowWatcher(t *testing.T) {
	f := newFeed()
	s, client := serve(t, f)
	s.sendTimeout = 50 * time.Millisecond
	f.Replace(watch.NewTable())
	stream, err := client.WatchNames(t.Context(), &resolverv1.WatchNamesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 60)
	for r := ax.Revision(1); testutil.ToFloat64(s.cutOff) == 0; r++ { // until flow control holds the sender
		var changes []watch.Change
		for i := range 500 {
			changes = append(changes, put(endpoint(fmt.Sprint(i), fmt.Sprintf("n%d.%s.%s", i, long, long), fmt.Sprintf("198.18.%d.%d:80", i>>8, r%250+1))))
		}
		f.Apply(watch.Event{Revision: r, Changes: changes})
		time.Sleep(time.Millisecond)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("cut off with %v", err)
	}
	if stream, err = client.WatchNames(t.Context(), &resolverv1.WatchNamesRequest{}); err != nil {
		t.Fatal(err)
	}
	known := &follower{}
	known.receive(t, stream)
	if len(known.names) != 500 {
		t.Errorf("knows %d names", len(known.names))
	}
}

func TestTooManyWatchers(t *testing.T) {
	f := newFeed()
	s, client := serve(t, f)
	s.slots = make(chan struct{}, 1)
	f.Replace(watch.NewTable())
	ctx, cancel := context.WithCancel(t.Context())
	first, err := client.WatchNames(ctx, &resolverv1.WatchNamesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	second, err := client.WatchNames(t.Context(), &resolverv1.WatchNamesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the second watcher: %v", err)
	}
	cancel()
	for range 200 {
		stream, err := client.WatchNames(t.Context(), &resolverv1.WatchNamesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the slot is never given back")
}
