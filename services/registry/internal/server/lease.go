package server

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// GrantLease implements RegistryService.
//
// A node that comes back (its agent was killed and started again) replaces its own lease. The old lease can do nothing
// from then on but run out: what was written under it and has not been written again by then disappears with it, and
// what has been written again never was away.
func (s *Server) GrantLease(ctx context.Context, req *registryv1.GrantLeaseRequest) (*registryv1.GrantLeaseResponse, error) {
	node, err := axpb.NodeFrom(req.GetNode())
	if err == nil {
		err = checkNode(node)
	}
	if err != nil {
		return nil, rpc.Invalid(err)
	}
	ttl := s.cfg.LeaseTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if err := req.GetTtl().CheckValid(); req.GetTtl() != nil && err != nil || ttl < minTTL || ttl > maxTTL {
		return nil, rpc.Errorf(codes.InvalidArgument, "%s is not between %s and %s", ttl, minTTL, maxTTL).On("ttl")
	}
	value, err := encode(node)
	if err != nil {
		return nil, err
	}
	lease, granted, err := s.cfg.Store.Grant(ctx, ttl)
	if err != nil {
		return nil, asRPC(err)
	}
	if err := s.enter(ctx, node, value, lease); err != nil {
		s.giveBack(ctx, lease)
		return nil, asRPC(err)
	}
	s.metrics.leases.Inc()
	return &registryv1.GrantLeaseResponse{LeaseId: int64(lease), Ttl: durationpb.New(granted)}, nil
}

// enter puts the node under the lease, unless another machine holds its name.
func (s *Server) enter(ctx context.Context, node ax.Node, value []byte, lease store.LeaseID) error {
	key := recordID{registryv1.Kind_KIND_NODE, string(node.Name)}.storeKey()
	for range maxAttempts {
		kvs, _, err := s.cfg.Store.Get(ctx, key)
		if err != nil {
			return err
		}
		txn := store.Txn{
			If:  []store.Condition{{Key: key}},
			Ops: []store.Op{{Key: key, Value: value, Lease: lease}},
		}
		if len(kvs) > 0 {
			if err := mayReplace(kvs[0], node); err != nil {
				return err
			}
			txn.If[0].Revision = kvs[0].Revision
			if old := kvs[0].Lease; old != 0 {
				mark := store.Op{Key: supersededKey(old), Value: []byte(strconv.FormatInt(int64(lease), 16)), Lease: old}
				txn.Ops = append(txn.Ops, mark)
			}
		}
		_, err = s.commit(ctx, "grant", txn)
		// No lease: the old one has run out since it was read. If it was the new one, the next attempt says so.
		if !errors.Is(err, store.ErrConflict) && (!errors.Is(err, store.ErrNoLease) || len(kvs) == 0) {
			return err
		}
	}
	return store.ErrConflict
}

func mayReplace(kv store.KV, node ax.Node) error {
	record, _, err := decode(kv)
	if err != nil {
		return nil //nolint:nilerr // what can't be read holds no name
	}
	holder, ok := record.Value.(ax.Node)
	if ok && holder.Addr != node.Addr {
		return rpc.Errorf(codes.AlreadyExists, "node name %q is held by the live node at %s", node.Name, holder.Addr).
			WithFix("give this node another name with --node-name")
	}
	return nil
}

// giveBack ends a lease that is of no use; if that fails it runs out by itself.
func (s *Server) giveBack(ctx context.Context, lease store.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.cfg.Store.Revoke(ctx, lease); err != nil {
		s.cfg.Log.Debug("unused lease left to run out", "lease", int64(lease), "error", err)
	}
}

// KeepLease implements RegistryService.
func (s *Server) KeepLease(stream grpc.BidiStreamingServer[registryv1.KeepLeaseRequest, registryv1.KeepLeaseResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		lease := store.LeaseID(req.GetLeaseId())
		if lease == 0 {
			return rpc.Errorf(codes.InvalidArgument, "missing").On("lease_id")
		}
		if err := s.checkLease(lease); err != nil {
			s.metrics.unrenewed.Inc()
			return err
		}
		ttl, err := s.cfg.Store.KeepAlive(stream.Context(), lease)
		if err != nil {
			s.metrics.unrenewed.Inc()
			return asRPC(err)
		}
		s.metrics.renewals.Inc()
		if err := stream.Send(&registryv1.KeepLeaseResponse{Ttl: durationpb.New(ttl)}); err != nil {
			return err
		}
	}
}

// RevokeLease implements RegistryService. A lease that has ended already is no error: what was asked for is so.
func (s *Server) RevokeLease(ctx context.Context, req *registryv1.RevokeLeaseRequest) (*registryv1.RevokeLeaseResponse, error) {
	if req.GetLeaseId() == 0 {
		return nil, rpc.Errorf(codes.InvalidArgument, "missing").On("lease_id")
	}
	err := s.cfg.Store.Revoke(ctx, store.LeaseID(req.GetLeaseId()))
	if err != nil && !errors.Is(err, store.ErrNoLease) {
		return nil, asRPC(err)
	}
	return &registryv1.RevokeLeaseResponse{}, nil
}
