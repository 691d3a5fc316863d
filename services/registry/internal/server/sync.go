package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

// Timing of the copy.
const (
	minRetry   = 50 * time.Millisecond // first wait before the store is asked again
	maxRetry   = 2 * time.Second       // longest such wait
	probeEvery = 15 * time.Second      // how often the store is asked whether it is still the same
)

var errOtherStore = errors.New("the store is not the one it was: its content was lost or restored")

// change is an event of the store, read: a record put (entry.put set) or deleted, or a mark on a lease.
type change struct {
	id         recordID
	entry      entry
	superseded store.LeaseID
	deleted    bool // with superseded
}

// sync keeps the copy until ctx ends. A break of the watch is mended from the revision where it broke; only when the
// store no longer knows what followed is the whole table listed again.
func (s *Server) sync(ctx context.Context) error {
	wait := &backoff.ExponentialBackOff{InitialInterval: minRetry, MaxInterval: maxRetry, Multiplier: 2, RandomizationFactor: 0.5}
	wait.Reset()
	list, away := true, false
	for {
		progress := func() {
			if away {
				s.cfg.Log.Info("store is back")
			}
			list, away = false, false
			s.metrics.connected.Set(1)
		}
		began := time.Now()
		err := s.follow(ctx, list, progress)
		if time.Since(began) > maxRetry {
			wait.Reset()
		}
		s.metrics.connected.Set(0)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it broke because it was to end
		}
		if errors.Is(err, store.ErrCompacted) || errors.Is(err, errOtherStore) {
			list = true
		}
		if !away {
			s.cfg.Log.Warn("watch of the store broke, the copy is served meanwhile", "error", err, "relist", list)
		}
		away = true
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// follow lists the store if asked to and follows it until that breaks.
func (s *Server) follow(ctx context.Context, list bool, progress func()) error {
	if list {
		if err := s.relist(ctx); err != nil {
			return err
		}
	} else if err := s.probe(ctx); err != nil {
		return err
	}
	progress()
	_, revision := s.table.at()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.cfg.Store.Watch(ctx, revision, func(b store.Batch) {
			changes := make([]change, 0, len(b.Events))
			for _, e := range b.Events {
				if c, ok := s.read(e); ok {
					changes = append(changes, c)
				}
			}
			s.table.apply(b.Revision, changes)
		})
		if err == nil {
			err = fmt.Errorf("%w: the watch ended", store.ErrUnavailable)
		}
		return err
	})
	g.Go(func() error {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if err := s.probe(ctx); errors.Is(err, errOtherStore) {
				return err
			}
		}
	})
	return g.Wait()
}

// relist makes the copy anew.
func (s *Server) relist(ctx context.Context) error {
	id, err := s.cfg.Store.ID(ctx)
	if err != nil {
		return err
	}
	kvs, revision, err := s.cfg.Store.List(ctx, "")
	if err != nil {
		return err
	}
	changes := make([]change, 0, len(kvs))
	for _, kv := range kvs {
		if c, ok := s.read(store.Event(kv)); ok {
			changes = append(changes, c)
		}
	}
	s.table.replace(id, revision, changes)
	s.metrics.relists.Inc()
	return nil
}

// probe finds out whether the store is still the one of which the copy is.
func (s *Server) probe(ctx context.Context) error {
	id, err := s.cfg.Store.ID(ctx)
	if err != nil {
		return err
	}
	mine, seen := s.table.at()
	_, revision, err := s.cfg.Store.Get(ctx)
	switch {
	case err != nil:
		return err
	case id != mine:
		return fmt.Errorf("%w: id %s, was %s", errOtherStore, id, mine)
	case revision < seen:
		return fmt.Errorf("%w: revision %d, was %d", errOtherStore, revision, seen)
	}
	return nil
}

// read makes a change of an event. A record that can't be read counts as deleted: nobody may act on it.
func (s *Server) read(e store.Event) (change, bool) {
	if lease, ok := parseSuperseded(e.Key); ok {
		return change{superseded: lease, deleted: e.Value == nil}, true
	}
	id, ok := parseKey(e.Key)
	if !ok {
		return change{}, false
	}
	if e.Value == nil {
		return change{id: id}, true
	}
	record, p, err := decode(store.KV(e))
	if err != nil {
		s.metrics.invalid.Inc()
		s.cfg.Log.Warn("record in the store ignored", "error", err)
		return change{id: id}, true
	}
	put := &registryv1.Change{Op: &registryv1.Change_Put{Put: p}}
	return change{id: id, entry: entry{value: record.Value, put: put, lease: e.Lease}}, true
}
