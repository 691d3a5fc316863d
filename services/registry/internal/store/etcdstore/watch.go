package etcdstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/registry/internal/store"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after ax.Revision, deliver func(store.Batch)) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch in the client
	responses := s.client.Watch(clientv3.WithRequireLeader(ctx), s.prefix,
		clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())
	last := after
	for {
		select {
		case <-s.done:
			return fmt.Errorf("%w: it has been stopped", store.ErrUnavailable)
		case resp, ok := <-responses:
			switch err := resp.Err(); {
			case err != nil:
				return storeError(err)
			case !ok && ctx.Err() != nil:
				return ctx.Err()
			case !ok:
				return fmt.Errorf("%w: etcd closed the watch", store.ErrUnavailable)
			case resp.Created && resp.Header.GetRevision() < int64(after):
				return fmt.Errorf("%w: watch from %d, etcd is at %d", store.ErrCompacted, after, resp.Header.GetRevision())
			}
			for _, b := range s.batches(resp) {
				if b.Revision > last {
					deliver(b)
					last = b.Revision
				}
			}
		}
	}
}

// batches cuts a response, which may span revisions, into one batch for each.
func (s *Store) batches(resp clientv3.WatchResponse) []store.Batch {
	if resp.IsProgressNotify() {
		return []store.Batch{{Revision: ax.Revision(resp.Header.GetRevision())}}
	}
	var out []store.Batch
	for _, e := range resp.Events {
		r := ax.Revision(e.Kv.ModRevision)
		if len(out) == 0 || out[len(out)-1].Revision != r {
			out = append(out, store.Batch{Revision: r})
		}
		b := &out[len(out)-1]
		event := store.Event(s.kv(e.Kv))
		if e.Type == clientv3.EventTypeDelete {
			event = store.Event{Key: event.Key, Revision: r}
		}
		b.Events = append(b.Events, event)
	}
	return out
}

func (s *Store) kv(kv *mvccpb.KeyValue) store.KV {
	value := kv.Value
	if value == nil {
		value = []byte{} // nil means deleted
	}
	return store.KV{
		Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: value,
		Lease: store.LeaseID(kv.Lease), Revision: ax.Revision(kv.ModRevision),
	}
}

// Grant implements store.Store. Etcd counts in whole seconds: the ttl is rounded up.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, time.Duration, error) {
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer cancel()
	resp, err := c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, 0, storeError(err)
	}
	return store.LeaseID(resp.ID), time.Duration(resp.TTL) * time.Second, nil
}

// KeepAlive implements store.Store.
func (s *Store) KeepAlive(ctx context.Context, id store.LeaseID) (time.Duration, error) {
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	resp, err := c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	if err != nil {
		return 0, storeError(err)
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// Revoke implements store.Store.
func (s *Store) Revoke(ctx context.Context, id store.LeaseID) error {
	c, ctx, cancel, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if _, err := c.Revoke(ctx, clientv3.LeaseID(id)); err != nil {
		return storeError(err)
	}
	return nil
}
