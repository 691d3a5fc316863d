package server

import (
	"bytes"
	"context"
	"errors"
	"net/netip"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
)

// Applying is declarative: a record is made what the request says, whatever it was. Who finds it so already writes
// nothing, and who meets another writer looks again.

// stored is a record as the store has it.
type stored struct {
	revision ax.Revision // 0: there is none
	value    any         // nil if there is none, or if it can't be read
	encoded  []byte
}

func (s *Server) stored(ctx context.Context, key string) (stored, error) {
	kvs, _, err := s.cfg.Store.Get(ctx, key)
	if err != nil || len(kvs) == 0 {
		return stored{}, err
	}
	out := stored{revision: kvs[0].Revision, encoded: kvs[0].Value}
	if r, _, err := decode(kvs[0]); err == nil {
		out.value = r.Value
		// What an older version wrote in another way is not another record.
		if again, err := encode(r.Value); err == nil {
			out.encoded = again
		}
	}
	return out, nil
}

// outcome says what it takes to make a record what is wanted.
func (old stored) outcome(want []byte) registryv1.ApplyOutcome {
	switch {
	case old.revision == 0:
		return registryv1.ApplyOutcome_APPLY_OUTCOME_CREATED
	case bytes.Equal(old.encoded, want):
		return registryv1.ApplyOutcome_APPLY_OUTCOME_UNCHANGED
	}
	return registryv1.ApplyOutcome_APPLY_OUTCOME_CONFIGURED
}

// retried repeats an attempt that others got in the way of.
func retried[T any](attempt func() (T, error)) (T, error) {
	for range maxAttempts {
		out, err := attempt()
		if !errors.Is(err, store.ErrConflict) {
			return out, asRPC(err)
		}
	}
	var none T
	return none, asRPC(store.ErrConflict)
}

// ApplyVirtualService implements RegistryService.
func (s *Server) ApplyVirtualService(ctx context.Context, req *registryv1.ApplyVirtualServiceRequest) (*registryv1.ApplyVirtualServiceResponse, error) {
	if v := req.GetVirtualService(); v != nil && req.GetName() != "" {
		v.Name = req.GetName()
	}
	v, err := s.virtualService(req.GetVirtualService())
	if err != nil {
		return nil, err
	}
	return retried(func() (*registryv1.ApplyVirtualServiceResponse, error) {
		return s.applyVirtualService(ctx, v, req.GetDryRun())
	})
}

func (s *Server) applyVirtualService(ctx context.Context, want ax.VirtualService, dryRun bool) (*registryv1.ApplyVirtualServiceResponse, error) {
	key := serviceKey(want.Name)
	old, err := s.stored(ctx, key)
	if err != nil {
		return nil, err
	}
	resp := &registryv1.ApplyVirtualServiceResponse{}
	was, readable := old.value.(ax.VirtualService)
	if readable {
		resp.Previous = axpb.VirtualService(was)
		if !want.Addr.IsValid() {
			want.Addr = was.Addr
		}
	}
	value, err := encode(want)
	if err != nil {
		return nil, err
	}
	resp.Outcome, resp.VirtualService = old.outcome(value), axpb.VirtualService(want)
	if dryRun {
		return resp, nil
	}
	if resp.GetOutcome() == registryv1.ApplyOutcome_APPLY_OUTCOME_UNCHANGED {
		resp.Revision = int64(old.revision)
		return resp, nil
	}
	claim, _, err := s.claim(ctx, want.Name, want.Addr) // virtual before anyone can be sent there
	if err != nil {
		return nil, err
	}
	want.Addr = claim.Addr
	if value, err = encode(want); err != nil {
		return nil, err
	}
	txn := store.Txn{If: []store.Condition{{Key: key, Revision: old.revision}}, Ops: []store.Op{{Key: key, Value: value}}}
	if readable && was.Addr.IsValid() && was.Addr != want.Addr && !s.heldByOthers(was) {
		if err := s.addMove(ctx, &txn, want.Name, was.Addr, want.Addr); err != nil {
			return nil, err
		}
	}
	revision, err := s.commit(ctx, "apply", txn)
	resp.Revision, resp.VirtualService = int64(revision), axpb.VirtualService(want)
	return resp, err
}

// addMove extends a transaction by the end of the claim of an address, and lets a name that belongs to it belong to
// another address.
func (s *Server) addMove(ctx context.Context, txn *store.Txn, name string, from, to netip.Addr) error {
	if err := s.addRelease(ctx, txn, from); err != nil {
		return err
	}
	for i, op := range txn.Ops {
		if op.Key == nameKey(name) {
			txn.Ops[i] = store.Op{Key: op.Key, Value: []byte(to.String())}
		}
	}
	return nil
}
