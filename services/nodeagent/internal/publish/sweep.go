package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"google.golang.org/grpc"
)

// sweepRetry is the wait before the table is listed again after a failure, which does not hinder publishing.
const sweepRetry = time.Second

// sweep finds the records that earlier runs of this node have left in the table. Once per run is enough: what this run
// sends is remembered.
func (p *Publisher) sweep(ctx context.Context, up <-chan struct{}) error {
	select {
	case <-up:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		keys, err := p.listOwn(ctx)
		if err == nil {
			p.found(keys)
			p.signal()
			return nil
		}
		p.deps.Log.Debug("table can't be listed, leftovers of earlier runs stay for now", "error", err)
		select {
		case <-time.After(sweepRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listOwn reads the table through a watch, which, unlike a list, comes in parts however large the table is.
func (p *Publisher) listOwn(ctx context.Context) ([]key, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	stream, err := p.deps.Client.Watch(ctx, &registryv1.WatchRequest{
		Kinds: []registryv1.Kind{registryv1.Kind_KIND_APP, registryv1.Kind_KIND_ENDPOINT},
	}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	var own []key
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		if !resp.GetList() {
			return nil, errors.New("list: the registry sent changes instead")
		}
		for _, c := range resp.GetChanges() {
			if k, ok := p.own(c.GetPut()); ok {
				own = append(own, k)
			}
		}
		if resp.GetComplete() {
			return own, nil
		}
	}
}

const listTimeout = 30 * time.Second

// own returns the key of a record that belongs to this node.
func (p *Publisher) own(r *registryv1.Record) (key, bool) {
	record, err := axpb.RecordFrom(r)
	if err != nil {
		return key{}, false
	}
	switch v := record.Value.(type) {
	case ax.App:
		return appKey(v.ID), v.Node == p.cfg.Node.Name && v.Cluster == p.cfg.Node.Cluster
	case ax.Endpoint:
		return endpointKey(v.ID), v.Node == p.cfg.Node.Name && v.Cluster == p.cfg.Node.Cluster
	}
	return key{}, false
}
