package memstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/services/registry/internal/store"
	"appswitch.io/services/registry/internal/store/memstore"
	"appswitch.io/services/registry/internal/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t) })
}

func open(t *testing.T) *memstore.Store {
	s := memstore.New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

func TestLeaseObeysTheTestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		id, _, err := s.Grant(t.Context(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		if _, err := s.KeepAlive(t.Context(), id); err != nil {
			t.Fatalf("keep alive after 9s: %v", err)
		}
		time.Sleep(11 * time.Second)
		if _, err := s.KeepAlive(t.Context(), id); !errors.Is(err, store.ErrNoLease) {
			t.Fatalf("keep alive after expiry: %v, want no lease", err)
		}
	})
}

func TestCompactAndDown(t *testing.T) {
	s := open(t)
	r, err := s.Write(t.Context(), store.Txn{Ops: []store.Op{{Key: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Compact(r)
	if err := s.Watch(t.Context(), r-1, func(store.Batch) {}); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("watch of what is compacted: %v", err)
	}
	s.SetDown(true)
	if _, _, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("list while down: %v", err)
	}
	s.SetDown(false)
	if kvs, _, err := s.List(t.Context(), ""); err != nil || len(kvs) != 1 {
		t.Fatalf("list: %v, error %v", kvs, err)
	}
}
