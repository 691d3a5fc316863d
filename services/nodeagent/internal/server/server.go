// Package server is the node agent's gRPC service: a view of what the agent holds.
//
// Invariant: it changes nothing but what is drained, and a slow watcher of flows misses some, counted, rather than holding anybody up.
// Start reading at [Server.WatchFlows].
package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"appswitch.io/services/nodeagent/internal/flows"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Status is how the agent is doing.
type Status struct {
	Node              ax.Node
	Apps, Sockets     int
	SnapshotRevision  ax.Revision // 0: none came yet
	SnapshotAge       time.Duration
	RouterConnected   bool
	RegistryConnected bool
	PendingWrites     int
}

// Agent is what the service shows. The server may sort what it is given.
type Agent interface {
	Apps() []ax.App
	Sockets(app ax.AppID) ([]*nodeagentv1.Socket, error)
	Status() Status
	// Ejections returns the endpoints to which connects have failed, by address, and the share in percent that is left
	// out at most.
	Ejections() ([]route.Ejection, int)
	// Drain starts or ends the drain of an application, or of the node if app is empty. It fails with ErrNotHere if there
	// is no such application.
	Drain(app ax.AppID, on bool) error
	Drains() (Drains, error)
}

// Server implements NodeAgentService.
type Server struct {
	nodeagentv1.UnimplementedNodeAgentServiceServer
	agent Agent
	flows *flows.Log
}

// New makes the service.
func New(agent Agent, log *flows.Log) *Server { return &Server{agent: agent, flows: log} }

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { nodeagentv1.RegisterNodeAgentServiceServer(r, s) }

// ListLocalApps implements NodeAgentService.
func (s *Server) ListLocalApps(context.Context, *nodeagentv1.ListLocalAppsRequest) (*nodeagentv1.ListLocalAppsResponse, error) {
	resp := &nodeagentv1.ListLocalAppsResponse{}
	apps := s.agent.Apps()
	slices.SortFunc(apps, func(a, b ax.App) int { return cmp.Compare(a.ID, b.ID) })
	for _, a := range apps {
		resp.Apps = append(resp.Apps, axpb.App(a))
	}
	return resp, nil
}

// ListSockets implements NodeAgentService.
func (s *Server) ListSockets(_ context.Context, req *nodeagentv1.ListSocketsRequest) (*nodeagentv1.ListSocketsResponse, error) {
	sockets, err := s.agent.Sockets(ax.AppID(req.GetAppId()))
	if err != nil {
		return nil, status.Errorf(codes.Internal, "list sockets: %v", err)
	}
	slices.SortFunc(sockets, func(a, b *nodeagentv1.Socket) int {
		return cmp.Or(cmp.Compare(a.GetAppId(), b.GetAppId()), cmp.Compare(a.GetInode(), b.GetInode()))
	})
	return &nodeagentv1.ListSocketsResponse{Sockets: sockets}, nil
}

// GetStatus implements NodeAgentService.
func (s *Server) GetStatus(context.Context, *nodeagentv1.GetStatusRequest) (*nodeagentv1.GetStatusResponse, error) {
	st := s.agent.Status()
	return &nodeagentv1.GetStatusResponse{
		Node: axpb.Node(st.Node), Apps: uint32(st.Apps), Sockets: uint32(st.Sockets),
		SnapshotRevision: int64(st.SnapshotRevision), SnapshotAge: durationpb.New(st.SnapshotAge),
		RouterConnected: st.RouterConnected, RegistryConnected: st.RegistryConnected, PendingWrites: uint32(st.PendingWrites),
	}, nil
}
