package server

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc/codes"
)

// Names of virtual services are looked up in the DNS, where case does not count: they are kept in lower case.
func serviceKey(name string) string {
	return recordID{registryv1.Kind_KIND_VIRTUAL_SERVICE, strings.ToLower(name)}.storeKey()
}

func noSuchService(name string) error {
	return rpc.Errorf(codes.NotFound, "there is no virtual service %q", name).WithFix("`ax get vservices` lists them")
}

// virtualService reads a virtual service as people write it, and refuses what can't be stored.
func (s *Server) virtualService(p *typev1.VirtualService) (ax.VirtualService, error) {
	v, err := axpb.VirtualServiceFrom(p)
	if err == nil {
		v.Name = strings.ToLower(v.Name)
		err = checkVirtualService(v)
	}
	if err != nil {
		return v, rpc.Invalid(err)
	}
	if v.Addr.IsValid() {
		err = s.checkClaimable("virtual_service.ip", v.Addr)
	}
	return v, err
}

// checkVirtualService checks names and addresses.
func checkVirtualService(v ax.VirtualService) error {
	if err := checkServiceName("virtual_service.name", v.Name); err != nil {
		return err
	}
	for _, b := range v.Backends {
		if b.Port == 0 && !b.External {
			continue // leads nowhere but to what is in the table
		}
		if err := checkVirtual("virtual_service.backends", b.Addr); err != nil {
			return err
		}
	}
	if v.Source.IsValid() {
		return checkVirtual("virtual_service.source_ip", v.Source)
	}
	return nil
}

// CreateVirtualService implements RegistryService.
func (s *Server) CreateVirtualService(ctx context.Context, req *registryv1.CreateVirtualServiceRequest) (*registryv1.CreateVirtualServiceResponse, error) {
	v, err := s.virtualService(req.GetVirtualService())
	if err != nil {
		return nil, err
	}
	taken := rpc.Errorf(codes.AlreadyExists, "a virtual service %q exists", v.Name).WithFix("delete it first, or choose another name")
	kvs, _, err := s.cfg.Store.Get(ctx, serviceKey(v.Name))
	if err != nil {
		return nil, asRPC(err)
	}
	if len(kvs) > 0 {
		return nil, taken
	}
	claim, _, err := s.claim(ctx, v.Name, v.Addr)
	if err != nil {
		return nil, asRPC(err)
	}
	v.Addr = claim.Addr
	value, err := encode(v)
	if err != nil {
		return nil, err
	}
	revision, err := s.commit(ctx, "create", store.Txn{
		If:  []store.Condition{{Key: serviceKey(v.Name)}},
		Ops: []store.Op{{Key: serviceKey(v.Name), Value: value}},
	})
	if errors.Is(err, store.ErrConflict) {
		return nil, taken
	}
	if err != nil {
		return nil, asRPC(err)
	}
	return &registryv1.CreateVirtualServiceResponse{VirtualService: axpb.VirtualService(v), Revision: int64(revision)}, nil
}

// GetVirtualService implements RegistryService.
func (s *Server) GetVirtualService(ctx context.Context, req *registryv1.GetVirtualServiceRequest) (*registryv1.GetVirtualServiceResponse, error) {
	if err := checkServiceName("name", req.GetName()); err != nil {
		return nil, rpc.Invalid(err)
	}
	kvs, _, err := s.cfg.Store.Get(ctx, serviceKey(req.GetName()))
	if err != nil {
		return nil, asRPC(err)
	}
	if len(kvs) == 0 {
		return nil, noSuchService(req.GetName())
	}
	_, p, err := decode(kvs[0])
	if err != nil {
		return nil, rpc.Errorf(codes.DataLoss, "%w", err).WithFix("delete the virtual service and create it again")
	}
	return &registryv1.GetVirtualServiceResponse{VirtualService: p.GetVirtualService()}, nil
}

// DeleteVirtualService implements RegistryService. The address is set free along with it, unless something else is there.
func (s *Server) DeleteVirtualService(ctx context.Context, req *registryv1.DeleteVirtualServiceRequest) (*registryv1.DeleteVirtualServiceResponse, error) {
	if err := checkServiceName("name", req.GetName()); err != nil {
		return nil, rpc.Invalid(err)
	}
	for range maxAttempts {
		kvs, _, err := s.cfg.Store.Get(ctx, serviceKey(req.GetName()))
		if err != nil {
			return nil, asRPC(err)
		}
		if len(kvs) == 0 {
			return nil, noSuchService(req.GetName())
		}
		txn := store.Txn{
			If:  []store.Condition{{Key: kvs[0].Key, Revision: kvs[0].Revision}},
			Ops: []store.Op{{Key: kvs[0].Key, Delete: true}},
		}
		if record, _, err := decode(kvs[0]); err == nil {
			if v, ok := record.Value.(ax.VirtualService); ok && !s.heldByOthers(v) {
				if err := s.addRelease(ctx, &txn, v.Addr); err != nil {
					return nil, asRPC(err)
				}
			}
		}
		revision, err := s.commit(ctx, "delete", txn)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, asRPC(err)
		}
		return &registryv1.DeleteVirtualServiceResponse{Revision: int64(revision)}, nil
	}
	return nil, asRPC(store.ErrConflict)
}

// heldByOthers reports whether something but v is at v's address. The copy of the table may be a moment late; what
// it misses, the sweep mends.
func (s *Server) heldByOthers(v ax.VirtualService) bool {
	held := false
	s.table.each(holders, func(value any, _ ax.Revision) {
		if other, ok := value.(ax.VirtualService); ok && other.Name == v.Name {
			return
		}
		held = held || addressOf(value) == v.Addr
	})
	return held
}

// addRelease extends a transaction by the end of the claim of an address, and of the name that goes with it.
func (s *Server) addRelease(ctx context.Context, txn *store.Txn, addr netip.Addr) error {
	kvs, _, err := s.cfg.Store.Get(ctx, claimKey(addr))
	if err != nil || len(kvs) == 0 {
		return err
	}
	txn.If = append(txn.If, store.Condition{Key: kvs[0].Key, Revision: kvs[0].Revision})
	txn.Ops = append(txn.Ops, store.Op{Key: kvs[0].Key, Delete: true})
	record, _, err := decode(kvs[0])
	claim, ok := record.Value.(ax.Claim)
	if err != nil || !ok || claim.Name == "" {
		return nil //nolint:nilerr // a claim that can't be read has no name to set free
	}
	names, _, err := s.cfg.Store.Get(ctx, nameKey(claim.Name))
	if err != nil || len(names) == 0 || string(names[0].Value) != addr.String() {
		return err
	}
	txn.If = append(txn.If, store.Condition{Key: names[0].Key, Revision: names[0].Revision})
	txn.Ops = append(txn.Ops, store.Op{Key: names[0].Key, Delete: true})
	return nil
}
