package rest

import (
	"context"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/rpc"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ListEjections implements the node agent's service.
func (b *backend) ListEjections(context.Context, *nodeagentv1.ListEjectionsRequest) (*nodeagentv1.ListEjectionsResponse, error) {
	return &nodeagentv1.ListEjectionsResponse{Ejections: b.ejections, MaxShare: 30}, nil
}

// ListDrains implements the node agent's service.
func (b *backend) ListDrains(context.Context, *nodeagentv1.ListDrainsRequest) (*nodeagentv1.ListDrainsResponse, error) {
	return &nodeagentv1.ListDrainsResponse{Drains: []*nodeagentv1.Drain{{AppId: b.drained, Connections: 3, Own: true}}, Node: "n1"}, nil
}

// Drain implements the node agent's service.
func (b *backend) Drain(_ context.Context, req *nodeagentv1.DrainRequest) (*nodeagentv1.DrainResponse, error) {
	b.drained = req.GetAppId()
	return &nodeagentv1.DrainResponse{}, nil
}

// Undrain implements the node agent's service.
func (b *backend) Undrain(_ context.Context, req *nodeagentv1.UndrainRequest) (*nodeagentv1.UndrainResponse, error) {
	if req.GetAppId() == "nosuch" {
		return nil, rpc.Errorf(codes.NotFound, "application %q does not run here", req.GetAppId())
	}
	b.drained = ""
	return &nodeagentv1.UndrainResponse{}, nil
}

// TestDrains: an application by its id, the node without one.
func TestDrains(t *testing.T) {
	b := &backend{}
	f := newFixture(t, b, asIs)
	if code, body := f.call(t, "PUT", "/v1/drains/f00001bb", ""); code != 200 || b.drained != "f00001bb" {
		t.Errorf("%d %s: drained %q", code, body, b.drained)
	}
	if code, body := f.call(t, "GET", "/v1/drains", ""); code != 200 || !strings.Contains(body, `"appId":"f00001bb","appName":"","connections":3`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := f.call(t, "DELETE", "/v1/drains/f00001bb", ""); code != 200 || b.drained != "" {
		t.Errorf("%d %s: drained %q", code, body, b.drained)
	}
	b.drained = "?"
	if code, body := f.call(t, "PUT", "/v1/drains", ""); code != 200 || b.drained != "" {
		t.Errorf("the node: %d %s: drained %q", code, body, b.drained)
	}
	if code, body := f.call(t, "DELETE", "/v1/drains/nosuch", ""); code != 404 {
		t.Errorf("%d %s", code, body)
	}
}

// TestEjections: what this node's agent leaves out is seen in the table and in explanations.
func TestEjections(t *testing.T) {
	b := &backend{}
	f := newFixture(t, b, asIs)
	if _, body := f.call(t, "GET", "/v1/servers", ""); !strings.Contains(body, `"ejectedUntil":null`) {
		t.Errorf("nothing is ejected: %s", body)
	}
	until := timestamppb.New(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	tcp := typev1.Protocol_PROTOCOL_TCP
	b.ejections = []*nodeagentv1.Ejection{
		{Protocol: tcp, HostAddress: &typev1.SocketAddress{Ip: "10.0.2.15", Port: 40000}, Until: until},
		{Protocol: tcp, HostAddress: &typev1.SocketAddress{Ip: "10.0.2.15", Port: 40001}}, // has failed, no more
	}
	if _, body := f.call(t, "GET", "/v1/servers", ""); !strings.Contains(body, `"ejectedUntil":"2030-01-01T00:00:00Z"`) {
		t.Errorf("it is ejected: %s", body)
	}
	f.call(t, "GET", "/v1/explain?destination=1.1.1.1:80", "")
	if got := b.explain.GetEjected(); len(got) != 1 || got[0] != "10.0.2.15:40000" || b.explain.GetEjectedShare() != 30 {
		t.Errorf("the router was told %v, %d", got, b.explain.GetEjectedShare())
	}
	f.call(t, "GET", "/v1/explain?destination=1.1.1.1:80&ejected=10.0.0.1:1&ejected_share=100", "")
	if got := b.explain.GetEjected(); len(got) != 1 || got[0] != "10.0.0.1:1" || b.explain.GetEjectedShare() != 100 {
		t.Errorf("what if: the router was told %v, %d", got, b.explain.GetEjectedShare())
	}
}
