package server

import (
	"context"
	"errors"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc/codes"
)

func policyKey(name string) string {
	return recordID{registryv1.Kind_KIND_POLICY, name}.storeKey()
}

func noSuchPolicy(name string) error {
	return rpc.Errorf(codes.NotFound, "there is no policy %q", name).WithFix("`ax get policies` lists them")
}

// policyFrom reads a policy as people write it, and refuses what can't be stored.
func policyFrom(p *typev1.Policy) (policy ax.Policy, value []byte, err error) {
	policy, err = axpb.PolicyFrom(p)
	if err == nil {
		err = checkNames(policy)
	}
	if err != nil {
		return policy, nil, rpc.Invalid(err)
	}
	value, err = encode(policy)
	return policy, value, err
}

// CreatePolicy implements RegistryService.
func (s *Server) CreatePolicy(ctx context.Context, req *registryv1.CreatePolicyRequest) (*registryv1.CreatePolicyResponse, error) {
	p, value, err := policyFrom(req.GetPolicy())
	if err != nil {
		return nil, err
	}
	revision, err := s.commit(ctx, "create", store.Txn{
		If:  []store.Condition{{Key: policyKey(p.Name)}},
		Ops: []store.Op{{Key: policyKey(p.Name), Value: value}},
	})
	if errors.Is(err, store.ErrConflict) {
		return nil, rpc.Errorf(codes.AlreadyExists, "a policy %q exists", p.Name).WithFix("`ax apply` changes it; or choose another name")
	}
	if err != nil {
		return nil, asRPC(err)
	}
	return &registryv1.CreatePolicyResponse{Policy: axpb.Policy(p), Revision: int64(revision)}, nil
}

// GetPolicy implements RegistryService.
func (s *Server) GetPolicy(ctx context.Context, req *registryv1.GetPolicyRequest) (*registryv1.GetPolicyResponse, error) {
	if err := checkServiceName("name", req.GetName()); err != nil {
		return nil, rpc.Invalid(err)
	}
	kvs, _, err := s.cfg.Store.Get(ctx, policyKey(req.GetName()))
	if err != nil {
		return nil, asRPC(err)
	}
	if len(kvs) == 0 {
		return nil, noSuchPolicy(req.GetName())
	}
	_, p, err := decode(kvs[0])
	if err != nil {
		return nil, rpc.Errorf(codes.DataLoss, "%w", err).WithFix("delete the policy and create it again")
	}
	return &registryv1.GetPolicyResponse{Policy: p.GetPolicy()}, nil
}

// ApplyPolicy implements RegistryService.
func (s *Server) ApplyPolicy(ctx context.Context, req *registryv1.ApplyPolicyRequest) (*registryv1.ApplyPolicyResponse, error) {
	if p := req.GetPolicy(); p != nil && req.GetName() != "" {
		p.Name = req.GetName()
	}
	want, value, err := policyFrom(req.GetPolicy())
	if err != nil {
		return nil, err
	}
	return retried(func() (*registryv1.ApplyPolicyResponse, error) {
		key := policyKey(want.Name)
		old, err := s.stored(ctx, key)
		if err != nil {
			return nil, err
		}
		resp := &registryv1.ApplyPolicyResponse{Policy: axpb.Policy(want), Outcome: old.outcome(value)}
		if was, ok := old.value.(ax.Policy); ok {
			resp.Previous = axpb.Policy(was)
		}
		switch {
		case req.GetDryRun():
		case resp.GetOutcome() == registryv1.ApplyOutcome_APPLY_OUTCOME_UNCHANGED:
			resp.Revision = int64(old.revision)
		default:
			var revision ax.Revision
			revision, err = s.commit(ctx, "apply", store.Txn{
				If:  []store.Condition{{Key: key, Revision: old.revision}},
				Ops: []store.Op{{Key: key, Value: value}},
			})
			resp.Revision = int64(revision)
		}
		return resp, err
	})
}

// DeletePolicy implements RegistryService.
func (s *Server) DeletePolicy(ctx context.Context, req *registryv1.DeletePolicyRequest) (*registryv1.DeletePolicyResponse, error) {
	if err := checkServiceName("name", req.GetName()); err != nil {
		return nil, rpc.Invalid(err)
	}
	return retried(func() (*registryv1.DeletePolicyResponse, error) {
		key := policyKey(req.GetName())
		old, err := s.stored(ctx, key)
		if err != nil {
			return nil, err
		}
		if old.revision == 0 {
			return nil, noSuchPolicy(req.GetName())
		}
		revision, err := s.commit(ctx, "delete", store.Txn{
			If:  []store.Condition{{Key: key, Revision: old.revision}},
			Ops: []store.Op{{Key: key, Delete: true}},
		})
		return &registryv1.DeletePolicyResponse{Revision: int64(revision)}, err
	})
}
