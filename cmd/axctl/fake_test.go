package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	resolverv1 "appswitch.io/proto/gen/appswitch/resolver/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// fakeDaemon is a daemon over a service table in memory: the real REST and gRPC code, so that paths, field names and
// errors are those of the product, with the few rules of the services that a client can see.
type fakeDaemon struct {
	registryv1.UnimplementedRegistryServiceServer
	nodeagentv1.UnimplementedNodeAgentServiceServer
	gatewayv1.UnimplementedGatewayServiceServer
	routerv1.UnimplementedRouterServiceServer
	resolverv1.UnimplementedResolverServiceServer

	nodes     []*typev1.Node
	apps      []*typev1.App
	endpoints []*typev1.Endpoint
	sockets   []*nodeagentv1.Socket
	proxies   []*gatewayv1.Proxy
	flows     []*nodeagentv1.WatchFlowsResponse

	mu        sync.Mutex // guards what follows
	vservices []*typev1.VirtualService
	policies  []*typev1.Policy
	revision  int64
	drains    []*nodeagentv1.Drain // what the script has of them, and what is being drained
	draining  map[string]bool      // applications; "" is the node
}

// newFakeDaemon reads the table of a script; without the file it is empty.
func newFakeDaemon(path string) (*fakeDaemon, error) {
	d := &fakeDaemon{revision: 7}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := d.load(data); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return d, nil
}

// rest returns the REST interface. Streams need the daemon's gRPC address; without one there are none.
func (d *fakeDaemon) rest(conn grpc.ClientConnInterface) (http.Handler, error) {
	mux := runtime.NewServeMux()
	ctx := context.Background()
	var services error
	if conn != nil {
		services = errors.Join(
			nodeagentv1.RegisterNodeAgentServiceHandlerClient(ctx, mux, nodeagentv1.NewNodeAgentServiceClient(conn)),
			registryv1.RegisterRegistryServiceHandlerClient(ctx, mux, registryv1.NewRegistryServiceClient(conn)),
		)
	} else {
		services = registryv1.RegisterRegistryServiceHandlerServer(ctx, mux, d)
	}
	err := errors.Join(
		services,
		gatewayv1.RegisterGatewayServiceHandlerServer(ctx, mux, d),
		routerv1.RegisterRouterServiceHandlerServer(ctx, mux, d),
	)
	return mux, err
}

// serve serves gRPC on a port of its own. A daemon that is not well has a node agent that nobody talks to.
func (d *fakeDaemon) serve(well bool) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer()
	registryv1.RegisterRegistryServiceServer(s, d)
	routerv1.RegisterRouterServiceServer(s, d)
	resolverv1.RegisterResolverServiceServer(s, d)
	nodeagentv1.RegisterNodeAgentServiceServer(s, fakeAgent{fakeDaemon: d, well: well})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	return l.Addr().String(), func() { s.Stop(); <-done }, nil
}

// fakeAgent is the daemon as a node agent.
type fakeAgent struct {
	*fakeDaemon
	well bool
}

func (a fakeAgent) GetStatus(context.Context, *nodeagentv1.GetStatusRequest) (*nodeagentv1.GetStatusResponse, error) {
	age := 400 * time.Millisecond
	if !a.well {
		age = 90 * time.Second
	}
	return &nodeagentv1.GetStatusResponse{
		Node: &typev1.Node{Name: "node1", Cluster: "appswitch", Ip: "10.0.2.15", Driver: "user", Version: "v0.1.0"},
		Apps: uint32(len(a.apps)), Sockets: uint32(len(a.sockets)), SnapshotRevision: 7, SnapshotAge: durationpb.New(age),
		RouterConnected: a.well, RegistryConnected: a.well,
	}, nil
}

// WatchFlows sends the script's flows, of which it selects by application and verdict only. Then it ends, or waits.
func (a fakeAgent) WatchFlows(req *nodeagentv1.WatchFlowsRequest, stream grpc.ServerStreamingServer[nodeagentv1.WatchFlowsResponse]) error {
	for _, m := range a.flows {
		f := m.GetFlow()
		if req.GetAudited() && f.GetAuditPolicy() == "" {
			continue
		}
		if req.GetApp() != "" && req.GetApp() != f.GetAppName() || len(req.GetVerdicts()) > 0 && !slices.Contains(req.GetVerdicts(), f.GetVerdict()) {
			continue
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if req.GetPastOnly() {
		return nil
	}
	<-stream.Context().Done()
	return nil
}

func (d *fakeDaemon) Resolve(_ context.Context, req *resolverv1.ResolveRequest) (*resolverv1.ResolveResponse, error) {
	return nil, status.Errorf(codes.NotFound, "no service has the name %q", req.GetName())
}

func (d *fakeDaemon) Route(context.Context, *routerv1.RouteRequest) (*routerv1.RouteResponse, error) {
	return &routerv1.RouteResponse{Verdict: routerv1.Verdict_VERDICT_PASSTHROUGH, Reason: string(ax.ReasonLoopback), Revision: 7}, nil
}

func (d *fakeDaemon) load(data []byte) error {
	var lists map[string][]json.RawMessage
	if err := json.Unmarshal(data, &lists); err != nil {
		return err
	}
	for name, raws := range lists {
		var err error
		switch name {
		case "nodes":
			d.nodes, err = messages[typev1.Node](raws)
		case "apps":
			d.apps, err = messages[typev1.App](raws)
		case "endpoints":
			d.endpoints, err = messages[typev1.Endpoint](raws)
		case "sockets":
			d.sockets, err = messages[nodeagentv1.Socket](raws)
		case "proxies":
			d.proxies, err = messages[gatewayv1.Proxy](raws)
		case "flows":
			d.flows, err = messages[nodeagentv1.WatchFlowsResponse](raws)
		case "virtualServices":
			d.vservices, err = messages[typev1.VirtualService](raws)
		case "drains":
			d.drains, err = messages[nodeagentv1.Drain](raws)
		case "policies":
			d.policies, err = messages[typev1.Policy](raws)
		default:
			err = errors.New("no such list")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func messages[T any, P interface {
	*T
	proto.Message
}](raws []json.RawMessage) ([]P, error) {
	var out []P
	for _, raw := range raws {
		m := P(new(T))
		if err := protojson.Unmarshal(raw, m); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (d *fakeDaemon) ListNodes(context.Context, *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	return &registryv1.ListNodesResponse{Nodes: d.nodes, Revision: 7}, nil
}

func (d *fakeDaemon) ListApps(context.Context, *registryv1.ListAppsRequest) (*registryv1.ListAppsResponse, error) {
	return &registryv1.ListAppsResponse{Apps: d.apps, Revision: 7}, nil
}

func (d *fakeDaemon) ListEndpoints(context.Context, *registryv1.ListEndpointsRequest) (*registryv1.ListEndpointsResponse, error) {
	return &registryv1.ListEndpointsResponse{Endpoints: d.endpoints, Revision: 7}, nil
}

func (d *fakeDaemon) ListSockets(context.Context, *nodeagentv1.ListSocketsRequest) (*nodeagentv1.ListSocketsResponse, error) {
	return &nodeagentv1.ListSocketsResponse{Sockets: d.sockets}, nil
}

func (d *fakeDaemon) ListProxies(context.Context, *gatewayv1.ListProxiesRequest) (*gatewayv1.ListProxiesResponse, error) {
	return &gatewayv1.ListProxiesResponse{Proxies: d.proxies}, nil
}

func (d *fakeDaemon) ListVirtualServices(context.Context, *registryv1.ListVirtualServicesRequest) (*registryv1.ListVirtualServicesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &registryv1.ListVirtualServicesResponse{VirtualServices: slices.Clone(d.vservices), Revision: d.revision}, nil
}

func (d *fakeDaemon) CreateVirtualService(_ context.Context, req *registryv1.CreateVirtualServiceRequest) (*registryv1.CreateVirtualServiceResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := req.GetVirtualService()
	if d.find(v.GetName()) >= 0 {
		return nil, status.Errorf(codes.AlreadyExists, "virtual service %q exists already", v.GetName())
	}
	if v.GetIp() == "" {
		v.Ip = "198.18.0.1"
	}
	d.vservices = append(d.vservices, v)
	d.revision++
	return &registryv1.CreateVirtualServiceResponse{VirtualService: v, Revision: d.revision}, nil
}

func (d *fakeDaemon) DeleteVirtualService(_ context.Context, req *registryv1.DeleteVirtualServiceRequest) (*registryv1.DeleteVirtualServiceResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.find(req.GetName())
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "virtual service %q does not exist", req.GetName())
	}
	d.vservices = slices.Delete(d.vservices, i, i+1)
	d.revision++
	return &registryv1.DeleteVirtualServiceResponse{Revision: d.revision}, nil
}

func (d *fakeDaemon) ApplyVirtualService(_ context.Context, req *registryv1.ApplyVirtualServiceRequest) (*registryv1.ApplyVirtualServiceResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := req.GetVirtualService()
	if v.GetIp() == "127.0.0.1" {
		return nil, status.Error(codes.InvalidArgument, "virtual_service.ip: 127.0.0.1 is loopback, which every application has to itself")
	}
	resp := &registryv1.ApplyVirtualServiceResponse{VirtualService: v}
	i := d.find(v.GetName())
	if i >= 0 {
		resp.Previous = d.vservices[i]
		if v.GetIp() == "" {
			v.Ip = resp.GetPrevious().GetIp()
		}
	}
	resp.Outcome = outcome(i >= 0, proto.Equal(v, resp.GetPrevious()))
	switch {
	case req.GetDryRun():
		return resp, nil
	case i >= 0:
		d.vservices[i] = v
	default:
		if v.GetIp() == "" {
			v.Ip = "198.18.0.1"
		}
		d.vservices = append(d.vservices, v)
	}
	d.revision++
	resp.Revision = d.revision
	return resp, nil
}

func (d *fakeDaemon) ApplyPolicy(_ context.Context, req *registryv1.ApplyPolicyRequest) (*registryv1.ApplyPolicyResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &registryv1.ApplyPolicyResponse{Policy: req.GetPolicy()}
	i := slices.IndexFunc(d.policies, func(p *typev1.Policy) bool { return p.GetName() == req.GetPolicy().GetName() })
	if i >= 0 {
		resp.Previous = d.policies[i]
	}
	resp.Outcome = outcome(i >= 0, proto.Equal(req.GetPolicy(), resp.GetPrevious()))
	switch {
	case req.GetDryRun():
		return resp, nil
	case i >= 0:
		d.policies[i] = req.GetPolicy()
	default:
		d.policies = append(d.policies, req.GetPolicy())
	}
	d.revision++
	resp.Revision = d.revision
	return resp, nil
}

func (d *fakeDaemon) ListPolicies(context.Context, *registryv1.ListPoliciesRequest) (*registryv1.ListPoliciesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &registryv1.ListPoliciesResponse{Policies: slices.Clone(d.policies), Revision: d.revision}, nil
}

func (d *fakeDaemon) CreatePolicy(ctx context.Context, req *registryv1.CreatePolicyRequest) (*registryv1.CreatePolicyResponse, error) {
	dry, err := d.ApplyPolicy(ctx, &registryv1.ApplyPolicyRequest{Policy: req.GetPolicy(), DryRun: true})
	if err == nil && dry.GetPrevious() != nil {
		err = status.Errorf(codes.AlreadyExists, "a policy %q exists", req.GetPolicy().GetName())
	}
	if err != nil {
		return nil, err
	}
	done, err := d.ApplyPolicy(ctx, &registryv1.ApplyPolicyRequest{Policy: req.GetPolicy()})
	return &registryv1.CreatePolicyResponse{Policy: done.GetPolicy(), Revision: done.GetRevision()}, err
}

func (d *fakeDaemon) DeletePolicy(_ context.Context, req *registryv1.DeletePolicyRequest) (*registryv1.DeletePolicyResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.policies, func(p *typev1.Policy) bool { return p.GetName() == req.GetName() })
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "there is no policy %q", req.GetName())
	}
	d.policies = slices.Delete(d.policies, i, i+1)
	return &registryv1.DeletePolicyResponse{}, nil
}

// ReplayPolicies decides as the router does, on the script's endpoints.
func (d *fakeDaemon) ReplayPolicies(_ context.Context, req *routerv1.ReplayPoliciesRequest) (*routerv1.ReplayPoliciesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	read := func(in []*typev1.Policy) (out []ax.Policy, err error) {
		for _, p := range in {
			policy, err := axpb.PolicyFrom(p)
			if err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			out = append(out, policy)
		}
		return out, nil
	}
	table := route.Delta{Full: true}
	for _, p := range d.endpoints {
		e, err := axpb.EndpointFrom(p)
		if err != nil {
			return nil, err
		}
		table.Upserts = append(table.Upserts, route.Service{Key: route.ServiceKey{Proto: e.Proto, Addr: e.Service}, Endpoints: []*ax.Endpoint{&e}})
	}
	var err error
	if table.Policies, err = read(d.policies); err != nil {
		return nil, err
	}
	draft := route.Delta{RemovedPolicies: req.GetRemovedPolicies()}
	if draft.Policies, err = read(req.GetPolicies()); err != nil {
		return nil, err
	}
	present := route.Empty().Apply(table)
	next := present.Apply(draft)
	resp := &routerv1.ReplayPoliciesResponse{}
	for _, f := range req.GetFlows() {
		proto, err1 := axpb.ProtocolFrom(f.GetProtocol())
		dest, err2 := axpb.AddrPortFrom("destination", f.GetDestination())
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		was, is, changed := route.Replay(present, next, ax.Flow{Labels: f.GetLabels(), Proto: proto, Dest: dest})
		answer := func(d ax.Decision) *routerv1.RouteResponse {
			return &routerv1.RouteResponse{Verdict: axpb.Verdict(d.Verdict), Reason: d.Why(), AuditPolicy: d.Audit}
		}
		resp.Flows = append(resp.Flows, &routerv1.ReplayedFlow{Present: answer(was), Draft: answer(is), Changed: changed})
	}
	return resp, nil
}

func outcome(exists, same bool) registryv1.ApplyOutcome {
	switch {
	case !exists:
		return registryv1.ApplyOutcome_APPLY_OUTCOME_CREATED
	case same:
		return registryv1.ApplyOutcome_APPLY_OUTCOME_UNCHANGED
	}
	return registryv1.ApplyOutcome_APPLY_OUTCOME_CONFIGURED
}

func (d *fakeDaemon) find(name string) int {
	return slices.IndexFunc(d.vservices, func(v *typev1.VirtualService) bool { return v.GetName() == name })
}

func (d *fakeDaemon) Explain(_ context.Context, req *routerv1.ExplainRequest) (*routerv1.ExplainResponse, error) {
	labels := ax.DefaultLabels()
	if len(req.GetLabels()) > 0 {
		parsed, err := ax.ParseLabels(strings.Join(req.GetLabels(), ","))
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		labels = parsed
	}
	if req.GetApp() != "" {
		i := slices.IndexFunc(d.apps, func(a *typev1.App) bool { return a.GetId() == req.GetApp() || a.GetName() == req.GetApp() })
		if i < 0 {
			return nil, status.Errorf(codes.NotFound, "no application has the id or name %q", req.GetApp())
		}
		labels = d.apps[i].GetLabels()
	}
	out := &routerv1.ExplainResponse{
		Verdict: routerv1.Verdict_VERDICT_PASSTHROUGH, Reason: string(ax.ReasonExternal), Revision: 7,
		Age: durationpb.New(300 * time.Millisecond),
	}
	if strings.HasPrefix(req.GetDestination(), "127.") {
		out.Reason = string(ax.ReasonLoopback)
	}
	for _, e := range d.endpoints {
		a := e.GetServiceAddress()
		if req.GetDestination() != fmt.Sprintf("%s:%d", a.GetIp(), a.GetPort()) {
			continue
		}
		out.Destination = a
		c := &routerv1.Candidate{Endpoint: e, Eligible: labels.Shares(e.GetLabels()), Reason: string(ax.ReasonNoLabel)}
		if c.GetEligible() {
			c.Reason = string(ax.ReasonLabels)
			out.Verdict, out.Reason, out.Errno = routerv1.Verdict_VERDICT_ALLOW, c.GetReason(), ""
		} else if out.GetVerdict() != routerv1.Verdict_VERDICT_ALLOW {
			out.Verdict, out.Reason, out.Errno = routerv1.Verdict_VERDICT_DENY, c.GetReason(), "ECONNREFUSED"
		}
		out.Candidates = append(out.Candidates, c)
	}
	return out, nil
}
