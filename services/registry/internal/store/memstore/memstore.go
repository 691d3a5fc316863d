// Package memstore keeps the store in memory, with history and leases, for tests: it obeys the contract of package
// store to the letter and the clock of testing/synctest.
//
// Invariant: all state is behind one mutex, and expired leases are gone before any method looks. Start reading at
// [Store.Write].
package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/registry/internal/store"
	"github.com/google/uuid"
)

type lease struct {
	ttl     time.Duration
	expires time.Time
}

// Store implements store.Store.
type Store struct {
	mu        sync.Mutex // guards all below
	id        string
	revision  ax.Revision
	compacted ax.Revision // history up to it is gone
	history   []store.Batch
	entries   map[string]store.KV
	leases    map[store.LeaseID]lease
	nextLease store.LeaseID
	changed   chan struct{} // closed and replaced when anything changes
	down      bool          // pretends to be out of reach
}

var _ store.Store = (*Store)(nil)

// New returns an empty store. It can be used at once; Run makes leases expire while nobody calls.
func New() *Store {
	return &Store{
		id: uuid.NewString(), revision: 1, entries: map[string]store.KV{}, leases: map[store.LeaseID]lease{},
		nextLease: 1, changed: make(chan struct{}),
	}
}

// Run implements store.Store.
func (s *Store) Run(ctx context.Context) error {
	for {
		s.mu.Lock()
		s.expire(time.Now())
		next, changed := s.nextExpiry(), s.changed
		s.mu.Unlock()
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-changed:
			timer.Stop()
		}
	}
}

func (s *Store) nextExpiry() time.Time {
	next := time.Now().Add(time.Hour)
	if s.down {
		return next
	}
	for _, l := range s.leases {
		if l.expires.Before(next) {
			next = l.expires
		}
	}
	return next
}

// SetDown makes every call fail with ErrUnavailable, and breaks the watches, until it is called with false.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.notify()
}

// Compact forgets the history up to a revision.
func (s *Store) Compact(upTo ax.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = max(s.compacted, min(upTo, s.revision))
	s.history = slices.DeleteFunc(s.history, func(b store.Batch) bool { return b.Revision <= s.compacted })
	s.notify()
}

// Wipe throws everything away, as if the store had been replaced by a new one.
func (s *Store) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.revision, s.compacted, s.history = uuid.NewString(), 1, 0, nil
	s.entries, s.leases = map[string]store.KV{}, map[store.LeaseID]lease{}
	s.notify()
}

// ID implements store.Store.
func (s *Store) ID(ctx context.Context) (string, error) {
	if err := s.enter(ctx); err != nil {
		return "", err
	}
	defer s.mu.Unlock()
	return s.id, nil
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, t store.Txn) (ax.Revision, error) {
	if len(t.Ops) > store.MaxOps || len(t.If) > store.MaxOps {
		return 0, fmt.Errorf("%w: %d operations under %d conditions, at most %d", store.ErrTooLarge, len(t.Ops), len(t.If), store.MaxOps)
	}
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	for _, c := range t.If {
		if s.entries[c.Key].Revision != c.Revision {
			return 0, store.ErrConflict
		}
	}
	for _, op := range t.Ops {
		if _, ok := s.leases[op.Lease]; !op.Delete && op.Lease != 0 && !ok {
			return 0, fmt.Errorf("%w: %d", store.ErrNoLease, op.Lease)
		}
	}
	s.commit(t.Ops)
	return s.revision, nil
}

// commit carries out operations at a new revision, unless they change nothing.
func (s *Store) commit(ops []store.Op) {
	b := store.Batch{Revision: s.revision + 1}
	for _, op := range ops {
		if op.Delete {
			if _, ok := s.entries[op.Key]; ok {
				delete(s.entries, op.Key)
				b.Events = append(b.Events, store.Event{Key: op.Key, Revision: b.Revision})
			}
			continue
		}
		kv := store.KV{Key: op.Key, Value: append([]byte{}, op.Value...), Lease: op.Lease, Revision: b.Revision}
		s.entries[op.Key] = kv
		b.Events = append(b.Events, store.Event(kv))
	}
	if len(b.Events) == 0 {
		return
	}
	s.revision = b.Revision
	s.history = append(s.history, b)
	s.notify()
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, keys ...string) ([]store.KV, ax.Revision, error) {
	if err := s.enter(ctx); err != nil {
		return nil, 0, err
	}
	defer s.mu.Unlock()
	var out []store.KV
	for _, key := range keys {
		if kv, ok := s.entries[key]; ok {
			out = append(out, kv)
		}
	}
	return out, s.revision, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.KV, ax.Revision, error) {
	if err := s.enter(ctx); err != nil {
		return nil, 0, err
	}
	defer s.mu.Unlock()
	out := make([]store.KV, 0, len(s.entries))
	for _, kv := range s.entries {
		if strings.HasPrefix(kv.Key, prefix) {
			out = append(out, kv)
		}
	}
	slices.SortFunc(out, func(a, b store.KV) int { return strings.Compare(a.Key, b.Key) })
	return out, s.revision, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after ax.Revision, deliver func(store.Batch)) error {
	for {
		if err := s.enter(ctx); err != nil {
			return err
		}
		if after < s.compacted || after > s.revision {
			defer s.mu.Unlock()
			return fmt.Errorf("%w: %d, the store is at %d", store.ErrCompacted, after, s.revision)
		}
		var news []store.Batch
		for _, b := range s.history {
			if b.Revision > after {
				news = append(news, b)
			}
		}
		changed := s.changed
		s.mu.Unlock()
		for _, b := range news {
			deliver(b)
			after = b.Revision
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Grant implements store.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, time.Duration, error) {
	if err := s.enter(ctx); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	ttl = (ttl + time.Second - 1).Truncate(time.Second) // as etcd does
	id := s.nextLease
	s.nextLease++
	s.leases[id] = lease{ttl: ttl, expires: time.Now().Add(ttl)}
	s.notify()
	return id, ttl, nil
}

// KeepAlive implements store.Store.
func (s *Store) KeepAlive(ctx context.Context, id store.LeaseID) (time.Duration, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	l, ok := s.leases[id]
	if !ok {
		return 0, fmt.Errorf("%w: %d", store.ErrNoLease, id)
	}
	l.expires = time.Now().Add(l.ttl)
	s.leases[id] = l
	return l.ttl, nil
}

// Revoke implements store.Store.
func (s *Store) Revoke(ctx context.Context, id store.LeaseID) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, ok := s.leases[id]; !ok {
		return fmt.Errorf("%w: %d", store.ErrNoLease, id)
	}
	s.end(id)
	return nil
}

// enter takes the mutex, unless the store is out of reach.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return fmt.Errorf("%w: it has been set down", store.ErrUnavailable)
	}
	s.expire(time.Now())
	return nil
}

// expire ends the leases whose time has passed. A lease expires only while the store is up, like etcd's.
func (s *Store) expire(now time.Time) {
	if s.down {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if !s.leases[id].expires.After(now) {
			s.end(id)
		}
	}
}

// end deletes a lease and what lives under it.
func (s *Store) end(id store.LeaseID) {
	delete(s.leases, id)
	var ops []store.Op
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if s.entries[key].Lease == id {
			ops = append(ops, store.Op{Key: key, Delete: true})
		}
	}
	s.commit(ops)
}

func (s *Store) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}
