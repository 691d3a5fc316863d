// Package storetest holds every implementation of store.Store to the same contract.
//
// Invariant: it uses nothing but the contract, so that what passes here can stand in for etcd. Start at [Run].
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/registry/internal/store"
)

const patience = 20 * time.Second // for what must happen; leases of a real store take seconds

// Run tests the stores that open makes: each running, empty, and closed by the test's cleanup.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"ID":                  testID,
		"WriteGetList":        testWriteGetList,
		"Conditions":          testConditions,
		"EmptyWrite":          testEmptyWrite,
		"TooLarge":            testTooLarge,
		"WatchFromThePast":    testWatchFromThePast,
		"WatchWholeBatches":   testWatchWholeBatches,
		"WatchFromTheFuture":  testWatchFromTheFuture,
		"WatchEndsWithItsCtx": testWatchEnds,
		"LeaseExpires":        testLeaseExpires,
		"LeaseKeptAlive":      testLeaseKeptAlive,
		"LeaseRevoked":        testLeaseRevoked,
		"LeaseReplaced":       testLeaseReplaced,
		"ConcurrentClaims":    testConcurrentClaims,
		"ListPages":           testListPages,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return c
}

func put(key, value string) store.Op { return store.Op{Key: key, Value: []byte(value)} }

func mustWrite(t *testing.T, s store.Store, txn store.Txn) ax.Revision {
	t.Helper()
	r, err := s.Write(ctx(t), txn)
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	return r
}

func keys(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	kvs, _, err := s.List(ctx(t), prefix)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	var out []string
	for _, kv := range kvs {
		out = append(out, kv.Key+"="+string(kv.Value))
	}
	return out
}

func wantKeys(t *testing.T, s store.Store, prefix string, want ...string) {
	t.Helper()
	if got := keys(t, s, prefix); !slices.Equal(got, want) {
		t.Fatalf("entries under %q: %q, want %q", prefix, got, want)
	}
}

func testID(t *testing.T, s store.Store) {
	first, err := s.ID(ctx(t))
	if err != nil || first == "" {
		t.Fatalf("id %q, error %v", first, err)
	}
	mustWrite(t, s, store.Txn{Ops: []store.Op{put("a", "1")}})
	if again, err := s.ID(ctx(t)); err != nil || again != first {
		t.Fatalf("id %q, error %v; was %q", again, err, first)
	}
	wantKeys(t, s, "", "a=1") // the id is no entry
}

func testWriteGetList(t *testing.T, s store.Store) {
	wantKeys(t, s, "")
	r1 := mustWrite(t, s, store.Txn{Ops: []store.Op{put("b/1", "x"), put("a/1", "y"), put("b/2", "")}})
	r2 := mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "b/2", Delete: true}, put("b/3", "z"), {Key: "absent", Delete: true}}})
	if r2 <= r1 {
		t.Fatalf("revision %d after %d", r2, r1)
	}
	wantKeys(t, s, "", "a/1=y", "b/1=x", "b/3=z")
	wantKeys(t, s, "b/", "b/1=x", "b/3=z")
	kvs, at, err := s.Get(ctx(t), "b/3", "b/2", "a/1")
	if err != nil || len(kvs) != 2 || at != r2 {
		t.Fatalf("get: %v at %d, error %v; want two entries at %d", kvs, at, err, r2)
	}
	if kvs[0].Key != "b/3" || kvs[0].Revision != r2 || kvs[1].Key != "a/1" || kvs[1].Revision != r1 {
		t.Fatalf("get: %v, want b/3 of %d and a/1 of %d", kvs, r2, r1)
	}
	if _, at, err := s.Get(ctx(t)); err != nil || at != r2 {
		t.Fatalf("get of nothing: revision %d, error %v; want %d", at, err, r2)
	}
}

func testConditions(t *testing.T, s store.Store) {
	absent := store.Txn{If: []store.Condition{{Key: "k"}}, Ops: []store.Op{put("k", "1")}}
	r := mustWrite(t, s, absent)
	if _, err := s.Write(ctx(t), absent); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("second write of an absent key: %v, want a conflict", err)
	}
	update := store.Txn{If: []store.Condition{{Key: "k", Revision: r}, {Key: "other"}}, Ops: []store.Op{put("k", "2"), put("more", "m")}}
	mustWrite(t, s, update)
	if _, err := s.Write(ctx(t), update); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("write over a changed key: %v, want a conflict", err)
	}
	wantKeys(t, s, "", "k=2", "more=m")
}

func testEmptyWrite(t *testing.T, s store.Store) {
	r := mustWrite(t, s, store.Txn{Ops: []store.Op{put("k", "1")}})
	if again := mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "absent", Delete: true}}}); again < r {
		t.Fatalf("revision %d after %d", again, r)
	}
	wantKeys(t, s, "", "k=1")
}

func testTooLarge(t *testing.T, s store.Store) {
	var ops []store.Op
	for i := range store.MaxOps + 1 {
		ops = append(ops, put(fmt.Sprint(i), ""))
	}
	if _, err := s.Write(ctx(t), store.Txn{Ops: ops}); !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("write of %d operations: %v, want too large", len(ops), err)
	}
	wantKeys(t, s, "")
	mustWrite(t, s, store.Txn{Ops: ops[:store.MaxOps]})
}

func testWatchFromThePast(t *testing.T, s store.Store) {
	r1 := mustWrite(t, s, store.Txn{Ops: []store.Op{put("a", "1")}})
	r2 := mustWrite(t, s, store.Txn{Ops: []store.Op{put("b", "2")}})
	w := watch(t, s, r1)
	w.want(t, r2, "b=2")
	r3 := mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "a", Delete: true}, put("c", "")}})
	w.want(t, r3, "a deleted", "c=")
}

func testWatchWholeBatches(t *testing.T, s store.Store) {
	_, start, err := s.Get(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, s, start)
	const n = 20
	var wg sync.WaitGroup
	defer wg.Wait() // a change may be seen before its write has returned
	for i := range n {
		wg.Go(func() {
			var ops []store.Op
			for j := range store.MaxOps {
				ops = append(ops, put(fmt.Sprintf("%d/%d", i, j), "v"))
			}
			for {
				_, err := s.Write(context.Background(), store.Txn{Ops: ops})
				if err == nil {
					return
				}
				if !errors.Is(err, store.ErrUnavailable) { // as it may be on a busy machine; then it took place or not
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	last := start
	for range n {
		b := w.next(t)
		if b.Revision <= last || len(b.Events) != store.MaxOps {
			t.Fatalf("batch of %d events at revision %d after %d, want %d events", len(b.Events), b.Revision, last, store.MaxOps)
		}
		last = b.Revision
	}
}

func testWatchFromTheFuture(t *testing.T, s store.Store) {
	err := s.Watch(ctx(t), 1_000_000, func(store.Batch) {})
	if !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("watch from a revision not reached: %v, want compacted", err)
	}
}

func testWatchEnds(t *testing.T, s store.Store) {
	_, start, err := s.Get(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	c, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Watch(c, start, func(store.Batch) {}) }()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("watch ended with %v, want its context's error", err)
		}
	case <-time.After(patience):
		t.Fatal("watch goes on without its context")
	}
}

func testLeaseExpires(t *testing.T, s store.Store) {
	id, ttl, err := s.Grant(ctx(t), time.Second)
	if err != nil || id == 0 || ttl < time.Second {
		t.Fatalf("grant: %d for %s, error %v", id, ttl, err)
	}
	r := mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "leased", Value: []byte("v"), Lease: id}, {Key: "leased2", Value: []byte("v"), Lease: id}, put("other", "v")}})
	if kvs, _, err := s.Get(ctx(t), "leased"); err != nil || len(kvs) != 1 || kvs[0].Lease != id {
		t.Fatalf("get: %v, error %v; want lease %d", kvs, err, id)
	}
	w := watch(t, s, r)
	b := w.next(t)
	if got := text(b); !slices.Equal(got, []string{"leased deleted", "leased2 deleted"}) {
		t.Fatalf("at expiry: %q", got)
	}
	wantKeys(t, s, "", "other=v")
	if _, err := s.KeepAlive(ctx(t), id); !errors.Is(err, store.ErrNoLease) {
		t.Fatalf("keep alive after expiry: %v, want no lease", err)
	}
	if _, err := s.Write(ctx(t), store.Txn{Ops: []store.Op{{Key: "late", Lease: id}}}); !errors.Is(err, store.ErrNoLease) {
		t.Fatalf("write under an expired lease: %v, want no lease", err)
	}
}

func testLeaseKeptAlive(t *testing.T, s store.Store) {
	id, ttl, err := s.Grant(ctx(t), 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "leased", Value: []byte("v"), Lease: id}}})
	for range 8 {
		time.Sleep(ttl / 4)
		if left, err := s.KeepAlive(ctx(t), id); err != nil || left < ttl/2 {
			t.Fatalf("keep alive: %s, error %v", left, err)
		}
	}
	wantKeys(t, s, "", "leased=v")
}

func testLeaseRevoked(t *testing.T, s store.Store) {
	id, _, err := s.Grant(ctx(t), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "leased", Value: []byte("v"), Lease: id}}})
	if err := s.Revoke(ctx(t), id); err != nil {
		t.Fatalf("revoke: %v", err)
	}
	wantKeys(t, s, "")
	if err := s.Revoke(ctx(t), id); !errors.Is(err, store.ErrNoLease) {
		t.Fatalf("second revoke: %v, want no lease", err)
	}
}

// An entry written again under another lease, or under none, no longer belongs to the first.
func testLeaseReplaced(t *testing.T, s store.Store) {
	var ids []store.LeaseID
	for range 2 {
		id, _, err := s.Grant(ctx(t), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "a", Lease: ids[0]}, {Key: "b", Lease: ids[0]}, {Key: "c", Lease: ids[0]}}})
	mustWrite(t, s, store.Txn{Ops: []store.Op{{Key: "a", Lease: ids[1]}, put("b", "")}})
	if err := s.Revoke(ctx(t), ids[0]); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, s, "", "a=", "b=")
	if err := s.Revoke(ctx(t), ids[1]); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, s, "", "b=")
}

func testConcurrentClaims(t *testing.T, s store.Store) {
	var (
		mu   sync.Mutex
		wins int
		wg   sync.WaitGroup
	)
	for i := range 32 {
		wg.Go(func() {
			_, err := s.Write(context.Background(), store.Txn{If: []store.Condition{{Key: "claim"}}, Ops: []store.Op{put("claim", fmt.Sprint(i))}})
			switch {
			case err == nil:
				mu.Lock()
				wins++
				mu.Unlock()
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("claim: %v", err)
			}
		})
	}
	wg.Wait()
	if wins != 1 {
		t.Fatalf("%d claims succeeded, want 1", wins)
	}
}

func testListPages(t *testing.T, s store.Store) {
	const n = 70 * store.MaxOps
	for i := 0; i < n; i += store.MaxOps {
		var ops []store.Op
		for j := range store.MaxOps {
			ops = append(ops, put(fmt.Sprintf("k/%06d", i+j), "v"))
		}
		mustWrite(t, s, store.Txn{Ops: ops})
	}
	got := keys(t, s, "k/")
	if len(got) != n || !slices.IsSorted(got) {
		t.Fatalf("list: %d entries, want %d in order", len(got), n)
	}
}

// watcher collects the batches of a watch that have events.
type watcher chan store.Batch

func watch(t *testing.T, s store.Store, after ax.Revision) watcher {
	w := make(watcher, 1024)
	c, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Watch(c, after, func(b store.Batch) { w <- b }); !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w watcher) next(t *testing.T) store.Batch {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case b := <-w:
			if len(b.Events) > 0 {
				return b
			}
		case <-deadline:
			t.Fatal("the watch has not delivered")
		}
	}
}

func (w watcher) want(t *testing.T, at ax.Revision, want ...string) {
	t.Helper()
	if b := w.next(t); b.Revision != at || !slices.Equal(text(b), want) {
		t.Fatalf("watch: %q at %d, want %q at %d", text(b), b.Revision, want, at)
	}
}

// text writes a batch by key.
func text(b store.Batch) []string {
	var out []string
	for _, e := range b.Events {
		if e.Value == nil {
			out = append(out, e.Key+" deleted")
		} else {
			out = append(out, e.Key+"="+string(e.Value))
		}
	}
	slices.Sort(out)
	return out
}
