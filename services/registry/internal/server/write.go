package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc/codes"
)

// leased are the kinds that live and die with their node. The others are the cluster's: they stay.
var leased = setOf(registryv1.Kind_KIND_NODE, registryv1.Kind_KIND_APP, registryv1.Kind_KIND_ENDPOINT)

// Write implements RegistryService: one request, one transaction.
func (s *Server) Write(ctx context.Context, req *registryv1.WriteRequest) (*registryv1.WriteResponse, error) {
	lease := store.LeaseID(req.GetLeaseId())
	if err := s.checkLease(lease); err != nil {
		return nil, err
	}
	if n := len(req.GetChanges()); n == 0 || n > MaxChanges {
		return nil, rpc.Errorf(codes.InvalidArgument, "%d changes: 1 to %d", n, MaxChanges).On("changes")
	}
	var (
		txn      store.Txn
		services []ax.VirtualService
		seen     = map[string]bool{}
	)
	for i, c := range req.GetChanges() {
		op, value, err := operation(c, lease)
		if err == nil && seen[op.Key] {
			err = fmt.Errorf("%s is changed twice in one transaction", op.Key)
		}
		if err != nil {
			return nil, rpc.Invalid(err).On(fmt.Sprintf("changes[%d]", i))
		}
		seen[op.Key] = true
		txn.Ops = append(txn.Ops, op)
		if v, ok := value.(ax.VirtualService); ok {
			services = append(services, v)
		}
	}
	for _, v := range services { // its address becomes virtual before anyone can be sent there
		if _, _, err := s.claim(ctx, v.Name, v.Addr); err != nil {
			return nil, asRPC(err)
		}
	}
	if lease != 0 { // checked again in the transaction: a late write must not undo one under the newer lease
		txn.If = append(txn.If, store.Condition{Key: supersededKey(lease)})
	}
	revision, err := s.commit(ctx, "write", txn)
	if errors.Is(err, store.ErrConflict) {
		return nil, errSuperseded(lease)
	}
	if err != nil {
		return nil, asRPC(err)
	}
	return &registryv1.WriteResponse{Revision: int64(revision)}, nil
}

// operation reads one change of a Write.
func operation(c *registryv1.Change, lease store.LeaseID) (store.Op, any, error) {
	if c.GetDelete() != nil {
		r, err := axpb.RecordKeyFrom(c.GetDelete())
		if err == nil {
			err = writable(r.Kind)
		}
		if r.Kind == registryv1.Kind_KIND_VIRTUAL_SERVICE {
			r.Key = strings.ToLower(r.Key)
		}
		return store.Op{Key: recordID{r.Kind, r.Key}.storeKey(), Delete: true}, nil, err
	}
	r, err := axpb.RecordFrom(c.GetPut())
	if err != nil {
		return store.Op{}, nil, err
	}
	if v, ok := r.Value.(ax.VirtualService); ok {
		v.Name = strings.ToLower(v.Name)
		r.Key, r.Value = v.Name, v
	}
	if err := writable(r.Kind); err != nil {
		return store.Op{}, nil, err
	}
	if err := checkNames(r.Value); err != nil {
		return store.Op{}, nil, err
	}
	b, err := encodeTraced(r.Value, r.Trace)
	if err != nil {
		return store.Op{}, nil, err
	}
	op := store.Op{Key: recordID{r.Kind, r.Key}.storeKey(), Value: b}
	if leased.has(r.Kind) {
		op.Lease = lease
	}
	return op, r.Value, nil
}

func writable(k registryv1.Kind) error {
	if k == registryv1.Kind_KIND_ADDRESS_CLAIM {
		return fmt.Errorf("%s: claims are made with ClaimAddress and end by themselves", k)
	}
	return nil
}

// checkNames checks what a record needs beyond being readable.
func checkNames(value any) error {
	switch v := value.(type) {
	case ax.Node:
		return checkNode(v)
	case ax.VirtualService:
		if !v.Addr.IsValid() {
			return errors.New("virtual_service.ip: missing; only CreateVirtualService makes one up")
		}
		return checkVirtualService(v)
	case ax.Policy:
		return checkServiceName("policy.name", v.Name)
	case ax.Endpoint:
		if v.External {
			return fmt.Errorf("endpoint %s: external: only routes have such endpoints", v.ID)
		}
	}
	return nil
}

// checkLease refuses a lease that its node has replaced.
func (s *Server) checkLease(id store.LeaseID) error {
	if id != 0 && s.table.isSuperseded(id) {
		return errSuperseded(id)
	}
	return nil
}

func errSuperseded(id store.LeaseID) error {
	return rpc.Errorf(codes.FailedPrecondition, "lease %d: its node has been granted another one", id).On("lease_id")
}
