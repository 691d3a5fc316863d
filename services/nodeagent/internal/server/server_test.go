package server

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/nodeagent/internal/flows"
	"appswitch.io/services/nodeagent/internal/grpctest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent holds what the service is to show.
type agent struct {
	apps    []ax.App
	sockets []*nodeagentv1.Socket
	err     error
	status  Status

	ejections []route.Ejection
	drained   map[ax.AppID]bool // of those that run here
	node      bool
}

func (a *agent) Ejections() ([]route.Ejection, int) { return a.ejections, 50 }

func (a *agent) Drain(app ax.AppID, on bool) error {
	if _, here := a.drained[app]; !here && app != "" {
		return ErrNotHere
	}
	if app == "" {
		a.node = on
	} else {
		a.drained[app] = on
	}
	return a.err
}

func (a *agent) Drains() (Drains, error) {
	out := Drains{Node: a.node}
	for id, on := range a.drained {
		if on || a.node {
			out.Apps = append(out.Apps, &nodeagentv1.Drain{AppId: string(id), Own: on})
		}
	}
	return out, a.err
}

func (a *agent) Apps() []ax.App { return a.apps }
func (a *agent) Status() Status { return a.status }
func (a *agent) Sockets(app ax.AppID) (out []*nodeagentv1.Socket, err error) {
	for _, s := range a.sockets {
		if app == "" || s.GetAppId() == string(app) {
			out = append(out, s)
		}
	}
	return out, a.err
}

// serve runs a test with a client of the service in a synctest bubble.
func serve(t *testing.T, a *agent, test func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, s *grpctest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log, err := flows.New(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		s, conn := grpctest.Start(t, func(r grpc.ServiceRegistrar) { New(a, log).Register(r) })
		test(t, nodeagentv1.NewNodeAgentServiceClient(conn), log, s)
	})
}

func app(id ax.AppID) ax.App {
	return ax.App{ID: id, Name: "web", Node: "n1", Cluster: "c", Addr: netip.MustParseAddr("1.1.1.1"), Labels: ax.DefaultLabels()}
}

func TestListLocalApps(t *testing.T) {
	serve(t, &agent{apps: []ax.App{app("b"), app("a")}}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		got, err := c.ListLocalApps(t.Context(), &nodeagentv1.ListLocalAppsRequest{})
		if err != nil || len(got.GetApps()) != 2 || !proto.Equal(got.GetApps()[0], axpb.App(app("a"))) || got.GetApps()[1].GetId() != "b" {
			t.Errorf("apps %v, %v", got, err)
		}
	})
}

func TestListSockets(t *testing.T) {
	a := &agent{sockets: []*nodeagentv1.Socket{{AppId: "b", Inode: 1}, {AppId: "a", Inode: 9}, {AppId: "a", Inode: 5, Backlog: 128}}}
	serve(t, a, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		for app, want := range map[string]string{"": "a/5 a/9 b/1", "a": "a/5 a/9", "x": ""} {
			resp, err := c.ListSockets(t.Context(), &nodeagentv1.ListSocketsRequest{AppId: app})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range resp.GetSockets() {
				got = append(got, s.GetAppId()+"/"+string(rune('0'+s.GetInode())))
			}
			if list := strings.Join(got, " "); list != want {
				t.Errorf("sockets of %q: %q, want %q", app, list, want)
			}
		}
		a.err = errors.New("netlink is broken")
		if _, err := c.ListSockets(t.Context(), &nodeagentv1.ListSocketsRequest{}); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "netlink is broken") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestGetStatus(t *testing.T) {
	node := ax.Node{Name: "n1", Cluster: "c", Addr: netip.MustParseAddr("10.0.0.1"), Driver: "user"}
	st := Status{
		Node: node, Apps: 2, Sockets: 3, SnapshotRevision: 4, SnapshotAge: 5 * time.Second,
		RouterConnected: true, RegistryConnected: true, PendingWrites: 6,
	}
	serve(t, &agent{status: st}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		got, err := c.GetStatus(t.Context(), &nodeagentv1.GetStatusRequest{})
		want := &nodeagentv1.GetStatusResponse{
			Node: axpb.Node(node), Apps: 2, Sockets: 3, SnapshotRevision: 4, SnapshotAge: durationpb.New(5 * time.Second),
			RouterConnected: true, RegistryConnected: true, PendingWrites: 6,
		}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("status %v, %v; want %v", got, err, want)
		}
	})
}

// watch opens a stream of flows and waits until it misses none.
func watch(t *testing.T, ctx context.Context, c nodeagentv1.NodeAgentServiceClient, app string) grpc.ServerStreamingClient[nodeagentv1.WatchFlowsResponse] {
	t.Helper()
	stream, err := c.WatchFlows(ctx, &nodeagentv1.WatchFlowsRequest{AppId: app})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestWatchFlows(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, _ *grpctest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream := watch(t, ctx, c, "a1")
		f := flows.Flow{
			Time: time.Unix(100, 5), App: "a1", Proto: ax.TCP, Dest: netip.MustParseAddrPort("1.1.1.1:80"), Verdict: ax.Allow,
			Reason: ax.ReasonLabels, Host: netip.MustParseAddrPort("10.0.0.1:40000"), Retries: 2,
		}
		other := f
		other.App = "a2"
		log.Add(other)
		log.Add(f)
		want := &nodeagentv1.Flow{
			Time: timestamppb.New(f.Time), AppId: "a1", Protocol: axpb.Protocol(ax.TCP), Destination: axpb.AddrPort(f.Dest),
			Verdict: routerv1.Verdict_VERDICT_ALLOW, Reason: "shared-label", HostAddress: axpb.AddrPort(f.Host), Retries: 2,
		}
		if got, err := stream.Recv(); err != nil || !proto.Equal(got.GetFlow(), want) || got.GetMissed() != 0 {
			t.Errorf("flow %v, %v; want %v", got, err, want)
		}
		f.Verdict, f.Reason, f.Host, f.Errno, f.Retries = ax.Deny, ax.ReasonNoLabel, netip.AddrPort{}, syscall.ECONNREFUSED, 0
		log.Add(f)
		got, err := stream.Recv()
		if err != nil || got.GetFlow().GetErrno() != "ECONNREFUSED" || got.GetFlow().GetHostAddress() != nil || got.GetFlow().GetVerdict() != routerv1.Verdict_VERDICT_DENY {
			t.Errorf("denied flow %v, %v", got, err)
		}
		cancel()
		synctest.Wait()
		if n := log.Watchers(); n != 0 {
			t.Errorf("%d watch after the client has gone", n)
		}
	})
}

// TestSlowWatcher does not receive until far more flows were made than wait for it.
func TestSlowWatcher(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, _ *grpctest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream := watch(t, ctx, c, "")
		const made = 100 * flows.Buffer
		for range made {
			log.Add(flows.Flow{App: "a1", Proto: ax.TCP, Verdict: ax.Allow, Reason: ax.ReasonLabels})
		}
		synctest.Wait()
		received, missed := 0, uint64(0)
		for received+int(missed) < made {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			received, missed = received+1, missed+resp.GetMissed()
		}
		if missed == 0 || received < flows.Buffer {
			t.Errorf("%d received, %d missed", received, missed)
		}
	})
}

func TestTooManyWatchers(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range flows.MaxWatchers {
			watch(t, ctx, c, "")
		}
		stream, err := c.WatchFlows(ctx, &nodeagentv1.WatchFlowsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("watcher %d: %v", flows.MaxWatchers+1, err)
		}
	})
}

func TestWatchersEndWithTheServer(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, s *grpctest.Server) {
		stream := watch(t, t.Context(), c, "")
		s.Leave()
		if _, err := stream.Recv(); err == nil {
			t.Error("a flow of a server that has gone")
		}
		synctest.Wait()
		if n := log.Watchers(); n != 0 {
			t.Errorf("%d watch a server that has gone", n)
		}
	})
}
