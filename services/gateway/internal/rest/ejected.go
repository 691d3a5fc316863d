package rest

import (
	"context"
	"net/netip"
	"time"

	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Which servers a node leaves out because connects to them fail is known to that node alone. What the gateway of a node
// shows of servers includes what its own agent knows.

// ejectionsTimeout bounds the wait for that: an agent that is away must not hide the table.
const ejectionsTimeout = time.Second

// ejection finds an endpoint in what the agent knows.
type ejection struct {
	protocol typev1.Protocol
	ip       string
	port     uint32
}

// ejections asks the node's agent which endpoints it leaves out now; an agent that doesn't answer leaves out none.
func ejections(ctx context.Context, agent nodeagentv1.NodeAgentServiceClient) (until map[ejection]*timestamppb.Timestamp, share uint32) {
	ctx, cancel := context.WithTimeout(ctx, ejectionsTimeout)
	defer cancel()
	resp, err := agent.ListEjections(ctx, &nodeagentv1.ListEjectionsRequest{})
	if err != nil {
		return nil, 0
	}
	until = map[ejection]*timestamppb.Timestamp{}
	for _, e := range resp.GetEjections() {
		if e.GetUntil() != nil {
			until[ejection{e.GetProtocol(), e.GetHostAddress().GetIp(), e.GetHostAddress().GetPort()}] = e.GetUntil()
		}
	}
	return until, resp.GetMaxShare()
}

// mark says of an endpoint until when it is left out, if it is.
func mark(e *typev1.Endpoint, until map[ejection]*timestamppb.Timestamp) {
	e.EjectedUntil = until[ejection{e.GetProtocol(), e.GetHostAddress().GetIp(), e.GetHostAddress().GetPort()}]
}

// localRegistry is the registry as this node sees it.
type localRegistry struct {
	registryv1.RegistryServiceClient
	agent nodeagentv1.NodeAgentServiceClient
}

// ListEndpoints implements registryv1.RegistryServiceClient.
func (l localRegistry) ListEndpoints(ctx context.Context, req *registryv1.ListEndpointsRequest, opts ...grpc.CallOption) (*registryv1.ListEndpointsResponse, error) {
	resp, err := l.RegistryServiceClient.ListEndpoints(ctx, req, opts...)
	if err != nil {
		return nil, err
	}
	until, _ := ejections(ctx, l.agent)
	for _, e := range resp.GetEndpoints() {
		mark(e, until)
	}
	return resp, nil
}

// localRouter is the router as this node sees it.
type localRouter struct {
	routerv1.RouterServiceClient
	agent nodeagentv1.NodeAgentServiceClient
}

// Explain implements routerv1.RouterServiceClient. Who names the ejected endpoints himself asks what would be.
func (l localRouter) Explain(ctx context.Context, req *routerv1.ExplainRequest, opts ...grpc.CallOption) (*routerv1.ExplainResponse, error) {
	until, share := ejections(ctx, l.agent)
	if len(req.GetEjected()) == 0 {
		req.EjectedShare = share
		for e := range until {
			if ip, err := netip.ParseAddr(e.ip); err == nil && e.port <= 65535 {
				req.Ejected = append(req.Ejected, netip.AddrPortFrom(ip, uint16(e.port)).String())
			}
		}
	}
	resp, err := l.RouterServiceClient.Explain(ctx, req, opts...)
	if err != nil {
		return nil, err
	}
	for _, c := range resp.GetCandidates() {
		mark(c.GetEndpoint(), until)
	}
	return resp, nil
}
