package server

import (
	"context"
	"errors"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ErrNotHere says that an application does not run on this node.
var ErrNotHere = errors.New("not on this node")

// Drains is what is being drained.
type Drains struct {
	Apps []*nodeagentv1.Drain // by id
	Node bool                 // all of it
}

// ListEjections implements NodeAgentService.
func (s *Server) ListEjections(context.Context, *nodeagentv1.ListEjectionsRequest) (*nodeagentv1.ListEjectionsResponse, error) {
	list, share := s.agent.Ejections()
	resp := &nodeagentv1.ListEjectionsResponse{Node: string(s.agent.Status().Node.Name), MaxShare: uint32(share)}
	now := time.Now()
	for _, e := range list {
		p := &nodeagentv1.Ejection{
			Protocol: axpb.Protocol(e.Proto), HostAddress: axpb.AddrPort(e.Host), Failures: uint32(e.Failures), Ejections: uint32(e.Ejections),
		}
		if now.Before(e.Until) {
			p.Until = timestamppb.New(e.Until)
		}
		resp.Ejections = append(resp.Ejections, p)
	}
	return resp, nil
}

// ListDrains implements NodeAgentService.
func (s *Server) ListDrains(context.Context, *nodeagentv1.ListDrainsRequest) (*nodeagentv1.ListDrainsResponse, error) {
	d, err := s.agent.Drains()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "list drains: %v", err)
	}
	return &nodeagentv1.ListDrainsResponse{Drains: d.Apps, NodeDraining: d.Node, Node: string(s.agent.Status().Node.Name)}, nil
}

// Drain implements NodeAgentService.
func (s *Server) Drain(_ context.Context, req *nodeagentv1.DrainRequest) (*nodeagentv1.DrainResponse, error) {
	return &nodeagentv1.DrainResponse{}, s.drain(req.GetAppId(), true)
}

// Undrain implements NodeAgentService.
func (s *Server) Undrain(_ context.Context, req *nodeagentv1.UndrainRequest) (*nodeagentv1.UndrainResponse, error) {
	return &nodeagentv1.UndrainResponse{}, s.drain(req.GetAppId(), false)
}

func (s *Server) drain(app string, on bool) error {
	err := s.agent.Drain(ax.AppID(app), on)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotHere):
		return status.Errorf(codes.NotFound, "app_id: application %q does not run on node %s: ask the daemon of its node, which `ax get apps` names",
			app, s.agent.Status().Node.Name)
	}
	return status.Errorf(codes.Internal, "drain: %v", err)
}
