package server

import (
	"context"
	"fmt"

	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	"appswitch.io/internal/rpc"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"google.golang.org/grpc/codes"
)

// Limits of a replay.
const (
	maxReplayedPolicies = 1000
	maxReplayedFlows    = 1024
)

// ReplayPolicies implements the router's gRPC service. The draft is a snapshot like any other that nobody else sees.
func (s *Server) ReplayPolicies(_ context.Context, req *routerv1.ReplayPoliciesRequest) (*routerv1.ReplayPoliciesResponse, error) {
	present, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	delta := route.Delta{Revision: present.Revision(), RemovedPolicies: req.GetRemovedPolicies()}
	if n := max(len(req.GetPolicies()), len(req.GetRemovedPolicies())); n > maxReplayedPolicies {
		return nil, rpc.Errorf(codes.InvalidArgument, "%d policies: at most %d", n, maxReplayedPolicies).On("policies")
	}
	if n := len(req.GetFlows()); n > maxReplayedFlows {
		return nil, rpc.Errorf(codes.InvalidArgument, "%d flows: at most %d", n, maxReplayedFlows).On("flows").WithFix("send them in several requests")
	}
	for _, p := range req.GetPolicies() {
		policy, err := axpb.PolicyFrom(p)
		if err != nil {
			return nil, rpc.Invalid(err)
		}
		delta.Policies = append(delta.Policies, policy)
	}
	draft := present.Apply(delta)
	resp := &routerv1.ReplayPoliciesResponse{Revision: int64(present.Revision())}
	for i, r := range req.GetFlows() {
		f, err := flowFrom(r)
		if err != nil {
			return nil, rpc.Invalid(fmt.Errorf("flows[%d]: %w", i, err))
		}
		was, is, changed := route.Replay(present, draft, f)
		resp.Flows = append(resp.Flows, &routerv1.ReplayedFlow{Present: routeResponse(was), Draft: routeResponse(is), Changed: changed})
	}
	return resp, nil
}
