package server

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc/codes"
)

// ClaimAddress implements RegistryService.
func (s *Server) ClaimAddress(ctx context.Context, req *registryv1.ClaimAddressRequest) (*registryv1.ClaimAddressResponse, error) {
	var addr netip.Addr
	if req.GetName() == "" && req.GetIp() == "" {
		return nil, rpc.Errorf(codes.InvalidArgument, "name or ip is required").On("name")
	}
	if req.GetName() != "" {
		if err := checkServiceName("name", req.GetName()); err != nil {
			return nil, rpc.Invalid(err)
		}
	}
	if req.GetIp() != "" {
		var err error
		if addr, err = axpb.AddrFrom("ip", req.GetIp()); err != nil {
			return nil, rpc.Invalid(err)
		}
		if err := s.checkClaimable("ip", addr); err != nil {
			return nil, err
		}
	}
	claim, revision, err := s.claim(ctx, req.GetName(), addr)
	if err != nil {
		return nil, asRPC(err)
	}
	return &registryv1.ClaimAddressResponse{Claim: axpb.Claim(claim), Revision: int64(revision)}, nil
}

// checkClaimable refuses addresses that are taken in earnest.
func (s *Server) checkClaimable(field string, addr netip.Addr) error {
	if err := checkVirtual(field, addr); err != nil {
		return rpc.Invalid(err)
	}
	var holder ax.NodeName
	s.table.each(setOf(registryv1.Kind_KIND_NODE), func(value any, _ ax.Revision) {
		if n, ok := value.(ax.Node); ok && n.Addr == addr {
			holder = n.Name
		}
	})
	if holder != "" {
		return rpc.Errorf(codes.InvalidArgument, "%s is the address of node %q itself", addr, holder).On(field).WithFix("choose another, or none")
	}
	return nil
}

// claim makes an address virtual: the one given, or that of the name, or a new one from the pool. What is claimed
// already stays as it is; a claim about to end is taken up again.
func (s *Server) claim(ctx context.Context, name string, addr netip.Addr) (ax.Claim, ax.Revision, error) {
	c := claiming{Server: s, name: name, addr: addr, next: s.pool.first(name)}
	for range maxAttempts {
		claim, revision, err := c.attempt(ctx)
		if !errors.Is(err, store.ErrConflict) {
			return claim, revision, err
		}
		c.next++
	}
	return ax.Claim{}, 0, store.ErrConflict
}

// claiming is one call of claim.
type claiming struct {
	*Server
	name string
	addr netip.Addr // invalid: whatever the name has
	next uint32     // where in the pool to look next
}

// attempt reads how things stand and changes them under the condition that they still do.
func (c *claiming) attempt(ctx context.Context) (ax.Claim, ax.Revision, error) {
	bound, binding, err := c.binding(ctx)
	if err != nil {
		return ax.Claim{}, 0, err
	}
	addr, allocated := c.addr, false
	if !addr.IsValid() {
		addr = bound
	}
	if !addr.IsValid() {
		if addr, err = c.free(); err != nil {
			return ax.Claim{}, 0, err
		}
		allocated = true
	}
	key := claimKey(addr)
	kvs, revision, err := c.cfg.Store.Get(ctx, key)
	if err != nil {
		return ax.Claim{}, 0, err
	}
	txn := store.Txn{If: []store.Condition{{Key: key}}}
	claim := ax.Claim{Addr: addr, Name: c.name, Allocated: allocated || !c.addr.IsValid() && c.pool.prefix.Contains(addr)}
	if len(kvs) > 0 {
		record, _, err := decode(kvs[0])
		held, ok := record.Value.(ax.Claim)
		switch {
		case allocated && err == nil:
			return ax.Claim{}, 0, store.ErrConflict // someone has just taken it: try the next
		case err == nil && ok:
			txn.If[0].Revision = kvs[0].Revision
			claim = held
		default: // unreadable, so that it is overwritten
			txn.If[0].Revision = kvs[0].Revision
		}
		unnamed := claim.Name == "" && c.name != "" && !bound.IsValid()
		if err == nil && claim.Expire.IsZero() && !unnamed {
			return claim, revision, nil
		}
		claim.Expire = time.Time{}
		if unnamed {
			claim.Name = c.name
		}
	}
	value, err := encode(claim)
	if err != nil {
		return ax.Claim{}, 0, err
	}
	txn.Ops = append(txn.Ops, store.Op{Key: key, Value: value})
	if c.name != "" {
		txn.If = append(txn.If, store.Condition{Key: nameKey(c.name), Revision: binding})
		if !bound.IsValid() {
			txn.Ops = append(txn.Ops, store.Op{Key: nameKey(c.name), Value: []byte(addr.String())})
		}
	}
	revision, err = c.commit(ctx, "claim", txn)
	return claim, revision, err
}

// binding returns the address that belongs to the name, if any, and the revision at which it came to.
func (c *claiming) binding(ctx context.Context) (netip.Addr, ax.Revision, error) {
	if c.name == "" {
		return netip.Addr{}, 0, nil
	}
	kvs, _, err := c.cfg.Store.Get(ctx, nameKey(c.name))
	if err != nil || len(kvs) == 0 {
		return netip.Addr{}, 0, err
	}
	addr, err := axpb.AddrFrom("name", string(kvs[0].Value))
	if err != nil {
		c.metrics.invalid.Inc()
		c.cfg.Log.Warn("address of a name ignored", "name", c.name, "error", err)
		return netip.Addr{}, kvs[0].Revision, nil
	}
	return addr, kvs[0].Revision, nil
}

// free returns the next address of the pool that no one has claimed, as far as the copy of the table knows.
func (c *claiming) free() (netip.Addr, error) {
	for range c.pool.size {
		addr := c.pool.at(c.next)
		if !c.table.has(recordID{registryv1.Kind_KIND_ADDRESS_CLAIM, addr.String()}) {
			return addr, nil
		}
		c.next++
	}
	return netip.Addr{}, rpc.Errorf(codes.ResourceExhausted, "no address left for %q: all %d of %s are claimed", c.name, c.pool.size, c.pool.prefix).
		WithFix("enlarge --ip-pool")
}

func claimKey(addr netip.Addr) string {
	return recordID{registryv1.Kind_KIND_ADDRESS_CLAIM, addr.String()}.storeKey()
}
