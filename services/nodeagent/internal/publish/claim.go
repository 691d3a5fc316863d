package publish

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrUnavailable says that the registry can't be reached now. Anything else that Claim returns won't get better by
// itself.
var ErrUnavailable = errors.New("the registry can't be reached: start it, or try again")

// Claim claims an address for a name, or, if ip is not valid, the address that belongs to the name, made up if need be.
// It may be called at any time, whether Run is running or not, and is idempotent.
func (p *Publisher) Claim(ctx context.Context, name string, ip netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, ClaimTimeout)
	defer cancel()
	req := &registryv1.ClaimAddressRequest{Name: name}
	what := fmt.Sprintf("name %q", name)
	if ip.IsValid() {
		req.Ip = ip.Unmap().String()
		what = "address " + req.Ip
	}
	resp, err := p.deps.Client.ClaimAddress(ctx, req)
	switch status.Code(err) {
	case codes.OK:
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return netip.Addr{}, fmt.Errorf("claim %s: %w (%s)", what, ErrUnavailable, status.Convert(err).Message())
	default:
		return netip.Addr{}, fmt.Errorf("claim %s: %s", what, status.Convert(err).Message())
	}
	claim, err := axpb.ClaimFrom(resp.GetClaim())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("claim %s: answer of the registry: %w", what, err)
	}
	return claim.Addr, nil
}
