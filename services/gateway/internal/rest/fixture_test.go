package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/rpc"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output collects logs.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// testWriteTimeout is shorter than the pauses of "slow".
const testWriteTimeout = 300 * time.Millisecond

// backend is registry, node agent and router in one, with a table of virtual services.
type backend struct {
	registryv1.UnimplementedRegistryServiceServer
	nodeagentv1.UnimplementedNodeAgentServiceServer
	routerv1.UnimplementedRouterServiceServer

	hang    chan struct{} // ListNodes waits for it
	explain *routerv1.ExplainRequest

	ejections []*nodeagentv1.Ejection
	drained   string         // application
	metadata  metadata.MD    // of the last ListApps
	streams   sync.WaitGroup // flow streams that run

	mu        sync.Mutex // guards vservices
	vservices map[string]*typev1.VirtualService
}

func (b *backend) ListNodes(ctx context.Context, _ *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	if b.hang != nil {
		select {
		case <-b.hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &registryv1.ListNodesResponse{Nodes: []*typev1.Node{{Name: "n1", Ip: "10.0.2.15"}}, Revision: 12}, nil
}

func (b *backend) ListApps(ctx context.Context, _ *registryv1.ListAppsRequest) (*registryv1.ListAppsResponse, error) {
	b.metadata, _ = metadata.FromIncomingContext(ctx)
	return &registryv1.ListAppsResponse{}, nil
}

func (b *backend) ListEndpoints(context.Context, *registryv1.ListEndpointsRequest) (*registryv1.ListEndpointsResponse, error) {
	return &registryv1.ListEndpointsResponse{Endpoints: []*typev1.Endpoint{{
		Id: "e", Protocol: typev1.Protocol_PROTOCOL_TCP, ServiceAddress: &typev1.SocketAddress{Ip: "1.1.1.1", Port: 80}, Labels: map[string]string{"role": "prod"},
		HostAddress: &typev1.SocketAddress{Ip: "10.0.2.15", Port: 40000},
	}}}, nil
}

// Watch sends a list in two parts and a change of the kinds asked for, and then has to be followed by another watch.
func (b *backend) Watch(req *registryv1.WatchRequest, s registryv1.RegistryService_WatchServer) error {
	b.streams.Add(1)
	defer b.streams.Done()
	if len(req.GetKinds()) != 1 || req.GetKinds()[0] != registryv1.Kind_KIND_APP {
		return rpc.Errorf(codes.InvalidArgument, "only applications are here").On("kinds")
	}
	app := func(id string) []*registryv1.Change {
		return []*registryv1.Change{{Op: &registryv1.Change_Put{Put: &registryv1.Record{Revision: 3, Value: &registryv1.Record_App{App: &typev1.App{Id: id, Name: "web"}}}}}}
	}
	gone := &registryv1.Change_Delete{Delete: &registryv1.RecordKey{Kind: registryv1.Kind_KIND_APP, Key: "a1"}}
	for _, m := range []*registryv1.WatchResponse{
		{TableId: "t", Revision: 5, List: true, Changes: app("a1")},
		{TableId: "t", Revision: 5, List: true, Complete: true, Changes: app("a2")},
		{TableId: "t", Revision: 6, Complete: true, Changes: []*registryv1.Change{{Op: gone}}},
	} {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return rpc.Errorf(codes.ResourceExhausted, "watcher is too slow: resume from the last revision seen")
}

func (b *backend) ListVirtualServices(context.Context, *registryv1.ListVirtualServicesRequest) (*registryv1.ListVirtualServicesResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &registryv1.ListVirtualServicesResponse{}
	for _, v := range b.vservices {
		resp.VirtualServices = append(resp.VirtualServices, v)
	}
	return resp, nil
}

func (b *backend) GetVirtualService(_ context.Context, req *registryv1.GetVirtualServiceRequest) (*registryv1.GetVirtualServiceResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.vservices[req.GetName()]
	if !ok {
		return nil, rpc.Errorf(codes.NotFound, "virtual service %q does not exist", req.GetName())
	}
	return &registryv1.GetVirtualServiceResponse{VirtualService: v}, nil
}

func (b *backend) CreateVirtualService(_ context.Context, req *registryv1.CreateVirtualServiceRequest) (*registryv1.CreateVirtualServiceResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := req.GetVirtualService()
	switch {
	case v.GetName() == "":
		return nil, rpc.Errorf(codes.InvalidArgument, "missing").On("virtual_service.name")
	case v.GetName() == "panic":
		panic("as asked")
	case b.vservices[v.GetName()] != nil:
		return nil, rpc.Errorf(codes.AlreadyExists, "virtual service %q exists", v.GetName())
	}
	b.vservices[v.GetName()] = v
	return &registryv1.CreateVirtualServiceResponse{VirtualService: v, Revision: 13}, nil
}

// ApplyVirtualService says back what it was asked.
func (b *backend) ApplyVirtualService(_ context.Context, req *registryv1.ApplyVirtualServiceRequest) (*registryv1.ApplyVirtualServiceResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := req.GetVirtualService()
	v.Name = req.GetName()
	resp := &registryv1.ApplyVirtualServiceResponse{VirtualService: v, Previous: b.vservices[v.GetName()], Outcome: registryv1.ApplyOutcome_APPLY_OUTCOME_CONFIGURED}
	if !req.GetDryRun() {
		b.vservices[v.GetName()] = v
		resp.Revision = 15
	}
	return resp, nil
}

func (b *backend) ApplyPolicy(_ context.Context, req *registryv1.ApplyPolicyRequest) (*registryv1.ApplyPolicyResponse, error) {
	p := req.GetPolicy()
	p.Name = req.GetName()
	return &registryv1.ApplyPolicyResponse{Policy: p, Outcome: registryv1.ApplyOutcome_APPLY_OUTCOME_CREATED}, nil
}

func (b *backend) GetPolicy(_ context.Context, req *registryv1.GetPolicyRequest) (*registryv1.GetPolicyResponse, error) {
	return &registryv1.GetPolicyResponse{Policy: &typev1.Policy{Name: req.GetName(), Action: typev1.PolicyAction_POLICY_ACTION_DENY}}, nil
}

func (b *backend) CreatePolicy(_ context.Context, req *registryv1.CreatePolicyRequest) (*registryv1.CreatePolicyResponse, error) {
	if req.GetPolicy().GetName() == "taken" {
		return nil, rpc.Errorf(codes.AlreadyExists, "a policy %q exists", "taken")
	}
	return &registryv1.CreatePolicyResponse{Policy: req.GetPolicy(), Revision: 16}, nil
}

// ReplayPolicies finds each flow changed.
func (b *backend) ReplayPolicies(_ context.Context, req *routerv1.ReplayPoliciesRequest) (*routerv1.ReplayPoliciesResponse, error) {
	resp := &routerv1.ReplayPoliciesResponse{Revision: 17}
	for range req.GetFlows() {
		resp.Flows = append(resp.Flows, &routerv1.ReplayedFlow{
			Present: &routerv1.RouteResponse{Verdict: routerv1.Verdict_VERDICT_ALLOW}, Changed: true,
			Draft: &routerv1.RouteResponse{Verdict: routerv1.Verdict_VERDICT_DENY, Reason: "policy-deny: " + req.GetPolicies()[0].GetName()},
		})
	}
	return resp, nil
}

func (b *backend) ListPolicies(context.Context, *registryv1.ListPoliciesRequest) (*registryv1.ListPoliciesResponse, error) {
	return &registryv1.ListPoliciesResponse{Policies: []*typev1.Policy{{Name: "p", Action: typev1.PolicyAction_POLICY_ACTION_DENY}}}, nil
}

func (b *backend) DeletePolicy(_ context.Context, req *registryv1.DeletePolicyRequest) (*registryv1.DeletePolicyResponse, error) {
	return nil, rpc.Errorf(codes.NotFound, "there is no policy %q", req.GetName())
}

func (b *backend) DeleteVirtualService(_ context.Context, req *registryv1.DeleteVirtualServiceRequest) (*registryv1.DeleteVirtualServiceResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.vservices[req.GetName()] == nil {
		return nil, rpc.Errorf(codes.NotFound, "virtual service %q does not exist", req.GetName())
	}
	delete(b.vservices, req.GetName())
	return &registryv1.DeleteVirtualServiceResponse{Revision: 14}, nil
}

func (b *backend) ListSockets(_ context.Context, req *nodeagentv1.ListSocketsRequest) (*nodeagentv1.ListSocketsResponse, error) {
	return &nodeagentv1.ListSocketsResponse{Sockets: []*nodeagentv1.Socket{{Id: "s", AppId: req.GetAppId()}}}, nil
}

// WatchFlows sends two flows, then, but for app "short", waits for the caller to go. App "none" is unknown, app "slow"
// thinks before each flow, app "flood" has no end of flows.
func (b *backend) WatchFlows(req *nodeagentv1.WatchFlowsRequest, s nodeagentv1.NodeAgentService_WatchFlowsServer) error {
	b.streams.Add(1)
	defer b.streams.Done()
	if req.GetAppId() == "none" {
		return rpc.Errorf(codes.NotFound, "app %q is not on this node", req.GetAppId())
	}
	for req.GetAppId() == "flood" {
		if err := s.Send(&nodeagentv1.WatchFlowsResponse{Flow: &nodeagentv1.Flow{AppId: "a", Reason: strings.Repeat("x", 1<<16)}}); err != nil {
			return err
		}
	}
	for _, errno := range []string{"", "ECONNREFUSED"} {
		if req.GetAppId() == "slow" {
			time.Sleep(2 * testWriteTimeout)
		}
		if err := s.Send(&nodeagentv1.WatchFlowsResponse{Flow: &nodeagentv1.Flow{AppId: "a", Errno: errno}}); err != nil {
			return err
		}
	}
	if req.GetAppId() == "short" || req.GetAppId() == "slow" {
		return nil
	}
	<-s.Context().Done()
	return s.Context().Err()
}

func (b *backend) Explain(_ context.Context, req *routerv1.ExplainRequest) (*routerv1.ExplainResponse, error) {
	b.explain = req
	return &routerv1.ExplainResponse{Verdict: routerv1.Verdict_VERDICT_DENY, Reason: "no-shared-label"}, nil
}

// doors answers for the gateway itself.
type doors struct {
	gatewayv1.UnimplementedGatewayServiceServer
}

func (doors) ListProxies(context.Context, *gatewayv1.ListProxiesRequest) (*gatewayv1.ListProxiesResponse, error) {
	return &gatewayv1.ListProxiesResponse{}, nil
}

// fixture is a REST server over a backend, both on real gRPC.
type fixture struct {
	url     string
	addr    string
	handler http.Handler
	metrics *prometheus.Registry
	log     *output
	stop    func() // ends the REST server
	stopRPC func() // ends the backend
}

func newFixture(t *testing.T, b *backend, edit func(*Config)) *fixture {
	t.Helper()
	b.vservices = map[string]*typev1.VirtualService{}
	f := &fixture{metrics: prometheus.NewRegistry(), log: &output{}}
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := rpc.NewServer(rpc.ServerConfig{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	registryv1.RegisterRegistryServiceServer(s, b)
	nodeagentv1.RegisterNodeAgentServiceServer(s, b)
	routerv1.RegisterRouterServiceServer(s, b)
	lis, dial := rpc.Pipe()
	f.stopRPC = inBackground(t, func(ctx context.Context) error { return rpc.Serve(ctx, s, lis) })
	conn, err := dial(rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	cfg := Config{
		Log: log, Metrics: f.metrics, Gatherer: f.metrics, Tracer: opentracing.NoopTracer{},
		Registry: registryv1.NewRegistryServiceClient(conn), NodeAgent: nodeagentv1.NewNodeAgentServiceClient(conn),
		Router: routerv1.NewRouterServiceClient(conn), Gateway: doors{},
	}
	edit(&cfg)
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = server.handler
	// On a port that the kernel chooses.
	f.addr = freeAddr(t)
	server.cfg.Addresses = append(server.cfg.Addresses, mustAddrPort(f.addr))
	f.url = "http://" + f.addr
	f.stop = inBackground(t, server.Run)
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
	return f
}

// inBackground runs f until the returned function is called, or the test ends.
func inBackground(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it did not stop")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// client has no connections left behind for the leak check.
var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// call returns status and body of a request over TCP.
func (f *fixture) call(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// direct returns the answer of the handler to a request that never was on a wire.
func (f *fixture) direct(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

// rpcStatus is a google.rpc.Status in JSON.
type rpcStatus struct {
	Code    int              `json:"code"`
	Message string           `json:"message"`
	Details []map[string]any `json:"details"`
}

func statusOf(t *testing.T, body string) rpcStatus {
	t.Helper()
	var st rpcStatus
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&st); err != nil || st.Code == 0 || st.Message == "" || st.Details == nil {
		t.Errorf("%q is no google.rpc.Status: %v", body, err)
	}
	return st
}

// gauge sums the values of a metric.
func gauge(t *testing.T, f *fixture, name string) float64 {
	t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, mf := range families {
		if mf.GetName() != name {
			continue
		}
		for _, m := range mf.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for until := time.Now().Add(5 * time.Second); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it did not come about within 5 s")
		}
	}
}
