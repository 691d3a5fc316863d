package server

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// Lists are read from the store, so that whoever has written something finds it, on whichever registry. They are for
// people and for tests; whoever wants to stay up to date watches.

// listed is a record of a list.
type listed struct {
	id    recordID
	value any
	p     *registryv1.Record // shared with the table, and immutable
}

// list reads the records of the kinds, by kind and key.
func (s *Server) list(ctx context.Context, kinds kindSet) ([]listed, ax.Revision, error) {
	prefix := "" // all of them at one revision, even if only some are wanted
	for k, dir := range directories {
		if kinds == setOf(k) {
			prefix = dir
		}
	}
	kvs, revision, err := s.cfg.Store.List(ctx, prefix)
	if err != nil {
		return nil, 0, asRPC(err)
	}
	var out []listed
	for _, kv := range kvs {
		id, ok := parseKey(kv.Key)
		if !ok || !kinds.has(id.kind) {
			continue
		}
		if known, ok := s.table.record(id, kv); ok { // most are: it needn't be decoded again
			out = append(out, listed{id: id, value: known.value, p: known.put.GetPut()})
			continue
		}
		r, p, err := decode(kv)
		if err != nil {
			s.metrics.invalid.Inc()
			continue
		}
		out = append(out, listed{id: id, value: r.Value, p: p})
	}
	slices.SortFunc(out, func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.id.kind, b.id.kind), strings.Compare(a.id.key, b.id.key))
	})
	return out, revision, nil
}

// fits refuses an answer that no message can carry.
func fits[M proto.Message](m M, err error) (M, error) {
	if size := proto.Size(m); err == nil && size > rpc.MaxMessageBytes {
		err = rpc.Errorf(codes.ResourceExhausted, "the list has %d bytes, more than a message may have", size).WithFix("use Watch, which sends it in parts")
	}
	if err != nil {
		var none M
		return none, err
	}
	return m, nil
}

// List implements RegistryService.
func (s *Server) List(ctx context.Context, req *registryv1.ListRequest) (*registryv1.ListResponse, error) {
	kinds, err := kindsOf(req.GetKinds())
	if err != nil {
		return nil, err
	}
	records, revision, err := s.list(ctx, kinds)
	resp := &registryv1.ListResponse{Revision: int64(revision)}
	for _, r := range records {
		resp.Records = append(resp.Records, r.p)
	}
	return fits(resp, err)
}

// ListNodes implements RegistryService.
func (s *Server) ListNodes(ctx context.Context, _ *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	records, revision, err := s.list(ctx, setOf(registryv1.Kind_KIND_NODE))
	resp := &registryv1.ListNodesResponse{Revision: int64(revision)}
	for _, r := range records {
		resp.Nodes = append(resp.Nodes, r.p.GetNode())
	}
	return fits(resp, err)
}

// ListApps implements RegistryService.
func (s *Server) ListApps(ctx context.Context, _ *registryv1.ListAppsRequest) (*registryv1.ListAppsResponse, error) {
	records, revision, err := s.list(ctx, setOf(registryv1.Kind_KIND_APP))
	resp := &registryv1.ListAppsResponse{Revision: int64(revision)}
	for _, r := range records {
		resp.Apps = append(resp.Apps, r.p.GetApp())
	}
	slices.SortFunc(resp.Apps, func(a, b *typev1.App) int {
		return cmp.Or(strings.Compare(a.GetNode(), b.GetNode()), strings.Compare(a.GetId(), b.GetId()))
	})
	return fits(resp, err)
}

// ListEndpoints implements RegistryService.
func (s *Server) ListEndpoints(ctx context.Context, _ *registryv1.ListEndpointsRequest) (*registryv1.ListEndpointsResponse, error) {
	records, revision, err := s.list(ctx, setOf(registryv1.Kind_KIND_ENDPOINT))
	resp := &registryv1.ListEndpointsResponse{Revision: int64(revision)}
	slices.SortFunc(records, func(a, b listed) int {
		x, _ := a.value.(ax.Endpoint)
		y, _ := b.value.(ax.Endpoint)
		return cmp.Or(ax.CompareAddrPort(x.Service, y.Service), cmp.Compare(x.Proto, y.Proto), strings.Compare(a.id.key, b.id.key))
	})
	for _, r := range records {
		resp.Endpoints = append(resp.Endpoints, r.p.GetEndpoint())
	}
	return fits(resp, err)
}

// ListVirtualServices implements RegistryService.
func (s *Server) ListVirtualServices(ctx context.Context, _ *registryv1.ListVirtualServicesRequest) (*registryv1.ListVirtualServicesResponse, error) {
	records, revision, err := s.list(ctx, setOf(registryv1.Kind_KIND_VIRTUAL_SERVICE))
	resp := &registryv1.ListVirtualServicesResponse{Revision: int64(revision)}
	for _, r := range records {
		resp.VirtualServices = append(resp.VirtualServices, r.p.GetVirtualService())
	}
	return fits(resp, err)
}

// ListPolicies implements RegistryService.
func (s *Server) ListPolicies(ctx context.Context, _ *registryv1.ListPoliciesRequest) (*registryv1.ListPoliciesResponse, error) {
	records, revision, err := s.list(ctx, setOf(registryv1.Kind_KIND_POLICY))
	resp := &registryv1.ListPoliciesResponse{Revision: int64(revision)}
	for _, r := range records {
		resp.Policies = append(resp.Policies, r.p.GetPolicy())
	}
	return fits(resp, err)
}
