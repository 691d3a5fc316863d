package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/opentracing/opentracing-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// session publishes under one lease until something breaks. A lease that is still good survives the session.
func (p *Publisher) session(ctx context.Context) error {
	up := make(chan struct{}) // closed when the registry has confirmed the lease in this session
	lease := p.currentLease()
	if lease == 0 {
		var err error
		if lease, err = p.grant(ctx); err != nil {
			return err
		}
		close(up)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.keep(ctx, lease, up) })
	g.Go(func() error { return p.write(ctx, lease, up) })
	if !p.isSwept() {
		g.Go(func() error { return p.sweep(ctx, up) })
	}
	return g.Wait()
}

func (p *Publisher) grant(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, GrantTimeout)
	defer cancel()
	resp, err := p.deps.Client.GrantLease(ctx, &registryv1.GrantLeaseRequest{
		Node: axpb.Node(p.Node()), Ttl: durationpb.New(p.cfg.TTL),
	}, grpc.WaitForReady(true))
	if err != nil {
		return 0, fmt.Errorf("grant lease: %w", err)
	}
	if resp.GetLeaseId() == 0 {
		return 0, errors.New("grant lease: the registry gave none")
	}
	ttl := p.ttl(resp.GetTtl())
	p.granted(resp.GetLeaseId(), ttl)
	p.deps.Log.Info("node's lease is granted", "node", string(p.cfg.Node.Name), "lease", resp.GetLeaseId(), "ttl", ttl)
	return resp.GetLeaseId(), nil
}

// ttl keeps what the registry says within reason.
func (p *Publisher) ttl(d *durationpb.Duration) time.Duration {
	if d == nil {
		return p.cfg.TTL
	}
	return min(max(d.AsDuration(), MinTTL), MaxTTL)
}

type keepStream = grpc.BidiStreamingClient[registryv1.KeepLeaseRequest, registryv1.KeepLeaseResponse]

// keep keeps the lease alive until the stream breaks; up is closed with the first renewal, unless it is already.
func (p *Publisher) keep(ctx context.Context, lease int64, up chan struct{}) error {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := p.deps.Client.KeepLease(ctx, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("keep lease: %w", err)
	}
	renewals := make(chan time.Duration)
	g.Go(func() error { return p.receive(ctx, stream, lease, renewals) })
	g.Go(func() error { return p.renew(ctx, stream, lease, renewals, up) })
	return g.Wait()
}

// receive notes each renewal, and notices at once when the registry ends the stream.
func (p *Publisher) receive(ctx context.Context, stream keepStream, lease int64, renewals chan<- time.Duration) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("keep lease: the registry ended the stream")
		}
		if err != nil {
			if leaseLost(err) {
				p.giveUp(lease)
			}
			return fmt.Errorf("keep lease: %w", err)
		}
		ttl := p.ttl(resp.GetTtl())
		p.renewed(lease, ttl)
		select {
		case renewals <- ttl:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// renew asks for a renewal three times per life of the lease.
func (p *Publisher) renew(ctx context.Context, stream keepStream, lease int64, renewals <-chan time.Duration, up chan struct{}) error {
	for {
		if err := stream.Send(&registryv1.KeepLeaseRequest{LeaseId: lease}); errors.Is(err, io.EOF) {
			<-ctx.Done() // receive learns why
			return ctx.Err()
		} else if err != nil {
			return fmt.Errorf("keep lease: %w", err)
		}
		var ttl time.Duration
		patience := p.patience()
		select {
		case ttl = <-renewals:
		case <-time.After(patience):
			p.unanswered++
			return fmt.Errorf("keep lease: no answer in %s", patience)
		case <-ctx.Done():
			return ctx.Err()
		}
		p.unanswered = 0
		select {
		case <-up:
		default:
			close(up)
		}
		select {
		case <-time.After(ttl / 3):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// patience is how long a renewal may take. A registry that hangs must leave time to ask another one, twice, before the
// lease is over; a single one that is slow gets its time in the third attempt.
func (p *Publisher) patience() time.Duration {
	if p.unanswered < impatient {
		return min(p.cfg.TTL/6, GrantTimeout)
	}
	return GrantTimeout
}

// write carries out what is queued, as soon as it is queued.
func (p *Publisher) write(ctx context.Context, lease int64, up <-chan struct{}) error {
	select {
	case <-up:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		changes := p.take(MaxChanges)
		if len(changes) == 0 {
			select {
			case <-p.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if err := p.transact(ctx, lease, changes); err != nil {
			return err
		}
	}
}

// transact writes changes in one transaction, or each by itself if the registry finds fault with one of them.
func (p *Publisher) transact(ctx context.Context, lease int64, changes []change) error {
	err := p.send(ctx, lease, changes)
	switch status.Code(err) {
	case codes.OK:
		p.done(changes)
		p.metrics.written(changes)
		return nil
	case codes.InvalidArgument, codes.OutOfRange:
		if len(changes) == 1 {
			p.refused(changes[0], err)
			return nil
		}
		for i := range changes {
			if err := p.transact(ctx, lease, changes[i:i+1]); err != nil {
				p.requeue(changes[i+1:])
				return err
			}
		}
		return nil
	case codes.Aborted, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		// Certainly not written, and the lease is not to blame.
	default:
		p.giveUp(lease)
	}
	p.requeue(changes)
	return fmt.Errorf("write: %w", err)
}

func (p *Publisher) send(ctx context.Context, lease int64, changes []change) error {
	req := &registryv1.WriteRequest{LeaseId: lease, Changes: make([]*registryv1.Change, len(changes))}
	var first opentracing.Span // the call belongs to the first trace that it serves
	for i, c := range changes {
		req.Changes[i] = c.proto(p.deps.Tracer)
		if first == nil {
			first = c.span
		}
	}
	if first != nil {
		ctx = opentracing.ContextWithSpan(ctx, first)
	}
	ctx, cancel := context.WithTimeout(ctx, WriteTimeout)
	defer cancel()
	_, err := p.deps.Client.Write(ctx, req)
	return err
}

// refused gives up on a record: the registry will never take it as it is.
func (p *Publisher) refused(c change, err error) {
	p.done([]change{c})
	p.metrics.refused.Inc()
	p.deps.Log.Error("record is not published: the registry refuses it", "kind", c.key.kind.String(), "key", c.key.id, "error", err)
}

// leave ends the lease when the publisher ends.
func (p *Publisher) leave() {
	lease := p.lastLease()
	if p.cfg.KeepOnExit || lease == 0 {
		return
	}
	p.giveUp(lease)
	ctx, cancel := context.WithTimeout(context.Background(), RevokeTimeout)
	defer cancel()
	if _, err := p.deps.Client.RevokeLease(ctx, &registryv1.RevokeLeaseRequest{LeaseId: lease}); err != nil && !leaseLost(err) {
		p.deps.Log.Warn("node's lease is not revoked, it will expire", "lease", lease, "error", err)
	}
}

func leaseLost(err error) bool {
	c := status.Code(err)
	return c == codes.FailedPrecondition || c == codes.NotFound
}
