package server

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
)

func TestWatchListThenChanges(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		h.write(t, 0, app("a0000001", "n1", "1.1.1.1"))
		w := h.watch(t, &registryv1.WatchRequest{})
		changes, head := w.list(t)
		if got := names(t, changes); !slices.Equal(got, []string{"+apps/a0000001"}) || head.GetTableId() == "" {
			t.Fatalf("list %q of table %q", got, head.GetTableId())
		}
		at := h.write(t, 0, app("a0000002", "n1", "1.1.1.1"), axpb.Delete(registryv1.Kind_KIND_APP, "a0000001"))
		m := w.next(t)
		got := names(t, m.GetChanges())
		slices.Sort(got)
		if !slices.Equal(got, []string{"+apps/a0000002", "-apps/a0000001"}) || m.GetRevision() != at || m.GetList() || !m.GetComplete() || m.GetTableId() != head.GetTableId() {
			t.Errorf("got %v, want one complete batch at %d", m, at)
		}
		for _, c := range m.GetChanges() {
			if c.GetPut() != nil && c.GetPut().GetRevision() != at {
				t.Errorf("record of revision %d, want %d", c.GetPut().GetRevision(), at)
			}
		}
	})
}

func TestWatchKinds(t *testing.T) {
	h := serve(t, memory(t))
	h.write(t, 0, app("a0000001", "n1", "1.1.1.1"), ax.Policy{Name: "p1", Action: ax.PolicyDeny})
	w := h.watch(t, &registryv1.WatchRequest{Kinds: []registryv1.Kind{registryv1.Kind_KIND_POLICY}})
	changes, _ := w.list(t)
	if got := names(t, changes); !slices.Equal(got, []string{"+policies/p1"}) {
		t.Errorf("list %q", got)
	}
	h.write(t, 0, app("a0000002", "n1", "1.1.1.1"))
	at := h.write(t, 0, app("a0000003", "n1", "1.1.1.1"), ax.Policy{Name: "p2", Action: ax.PolicyDeny})
	if m := w.next(t); m.GetRevision() != at || !slices.Equal(names(t, m.GetChanges()), []string{"+policies/p2"}) {
		t.Errorf("got %v, want p2 at %d", m, at)
	}
	_, err := h.watch(t, &registryv1.WatchRequest{Kinds: []registryv1.Kind{99}}).stream.Recv()
	wantCode(t, err, codes.InvalidArgument)
}

func TestWatchResumes(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		_, head := h.watch(t, &registryv1.WatchRequest{}).list(t)
		from := h.write(t, 0, app("a0000001", "n1", "1.1.1.1"))
		h.write(t, 0, app("a0000002", "n1", "1.1.1.1"))
		last := h.write(t, 0, app("a0000003", "n1", "1.1.1.1"))

		w := h.watch(t, &registryv1.WatchRequest{Revision: from, TableId: head.GetTableId()})
		var got []string
		for int64(0) != last {
			m := w.next(t)
			if m.GetList() {
				t.Fatalf("a watch that can be resumed began with a list: %v", m)
			}
			got = append(got, names(t, m.GetChanges())...)
			if m.GetRevision() == last {
				break
			}
		}
		if !slices.Equal(got, []string{"+apps/a0000002", "+apps/a0000003"}) {
			t.Errorf("resumed with %q", got)
		}
		for name, req := range map[string]*registryv1.WatchRequest{
			"another table":  {Revision: from, TableId: "other"},
			"no table":       {Revision: from},
			"negative":       {Revision: -1, TableId: head.GetTableId()},
			"not yet so far": {Revision: last + 1000, TableId: head.GetTableId()},
		} {
			if changes, _ := h.watch(t, req).list(t); len(changes) != 3 {
				t.Errorf("%s: list of %d, want 3", name, len(changes))
			}
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	one := func(i, n int) []change {
		var out []change
		for j := range n {
			p := axpb.Put(app(fmt.Sprintf("%d-%d", i, j), "n", "1.1.1.1"))
			out = append(out, change{id: recordID{registryv1.Kind_KIND_APP, p.GetPut().GetApp().GetId()}, entry: entry{put: p}})
		}
		return out
	}
	full := func(tb *table, revision ax.Revision) bool {
		sub, st, err := tb.subscribe("T", revision)
		if err != nil {
			t.Fatal(err)
		}
		tb.unsubscribe(sub)
		if !st.full && len(st.resume) > 0 && st.resume[0].revision != revision+1 {
			t.Errorf("resumed from %d with %d", revision, st.resume[0].revision)
		}
		return st.full
	}
	byCount := newTable(m)
	byCount.replace("T", 10, nil)
	for i := range MaxHistory + 5 {
		byCount.apply(ax.Revision(11+i), one(i, 1))
	}
	if !full(byCount, 14) || full(byCount, 15) || full(byCount, 10+MaxHistory+5) {
		t.Error("by count, history does not begin where it should")
	}
	byChanges := newTable(m)
	byChanges.replace("T", 10, nil)
	for i := range 5 {
		byChanges.apply(ax.Revision(11+i), one(i, MaxHistoryOps/4))
	}
	if !full(byChanges, 10) || full(byChanges, 11) {
		t.Error("by changes, history does not begin where it should")
	}
}

// A list, and the changes of one revision, may take many messages.
func TestWatchInParts(t *testing.T) {
	h := serve(t, memory(t))
	long := strings.Repeat("x", 200)
	lease := h.grant(t, node("n1", "10.0.0.1"), time.Minute)
	const n = 20
	for i := range n {
		var apps []any
		for j := range MaxChanges {
			a := app(fmt.Sprintf("%04d%04d", i, j), "n1", "1.1.1.1")
			a.Command = long
			apps = append(apps, a)
		}
		h.write(t, lease, apps...)
	}
	w := h.watch(t, &registryv1.WatchRequest{})
	parts, total := 0, 0
	for complete := false; !complete; parts++ {
		m := w.next(t)
		complete = m.GetComplete()
		total += len(m.GetChanges())
		if len(m.GetChanges()) > BatchChanges || !m.GetList() {
			t.Fatalf("part of %d changes, list %v", len(m.GetChanges()), m.GetList())
		}
	}
	if want := n*MaxChanges + 1; total != want || parts != (want+BatchChanges-1)/BatchChanges {
		t.Errorf("list of %d in %d parts, want %d", total, parts, want)
	}
	_, before := h.srv.table.at()
	if _, err := h.RevokeLease(soon(t), &registryv1.RevokeLeaseRequest{LeaseId: lease}); err != nil {
		t.Fatal(err)
	}
	for total > 0 {
		m := w.next(t)
		total -= len(m.GetChanges())
		if last := total == 0; last != (m.GetRevision() > int64(before)) || !m.GetComplete() || m.GetList() {
			t.Fatalf("part at revision %d (it was %d) with %d to come", m.GetRevision(), before, total)
		}
	}
}

// A watcher that does not read is cut off; one that does sees everything, on time.
func TestSlowWatcher(t *testing.T) {
	h := serve(t, memory(t))
	slow, quick := h.watch(t, &registryv1.WatchRequest{}), h.watch(t, &registryv1.WatchRequest{})
	slow.list(t)
	_, head := quick.list(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	const n = 3 * QueueLength
	big := app("a0000001", "n1", "1.1.1.1")
	big.Command = strings.Repeat("x", 1000)
	wg.Go(func() {
		for range n {
			if _, err := h.Write(context.Background(), &registryv1.WriteRequest{Changes: changesOf(big)}); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	})
	last := head.GetRevision()
	for range n {
		m := quick.next(t)
		if m.GetRevision() != last+1 {
			t.Fatalf("revision %d after %d", m.GetRevision(), last)
		}
		last = m.GetRevision()
	}
	seen := head.GetRevision()
	for {
		m, err := slow.stream.Recv()
		if err != nil {
			wantCode(t, err, codes.ResourceExhausted)
			break
		}
		seen = m.GetRevision()
	}
	if seen >= last {
		t.Errorf("the slow watcher saw everything, up to %d", seen)
	}
	if got := testutil.ToFloat64(h.srv.metrics.cutOff); got != 1 {
		t.Errorf("%v watchers cut off, want 1", got)
	}
	again := h.watch(t, &registryv1.WatchRequest{Revision: seen, TableId: head.GetTableId()})
	for seen < last {
		m := again.next(t)
		if m.GetList() || m.GetRevision() != seen+1 {
			t.Fatalf("resumed with %d (list %v) after %d", m.GetRevision(), m.GetList(), seen)
		}
		seen = m.GetRevision()
	}
}

// The store is away while things change, and has compacted its history when it is back: watchers get the difference.
func TestStoreCompactedWhileAway(t *testing.T) {
	st := memory(t)
	h := serve(t, st)
	h.write(t, 0, app("a0000001", "n1", "1.1.1.1"), app("a0000002", "n1", "1.1.1.1"), app("a0000003", "n1", "1.1.1.1"))
	w := h.watch(t, &registryv1.WatchRequest{})
	_, head := w.list(t)
	st.SetDown(true)
	eventually(t, "the copy has noticed", func() bool { return testutil.ToFloat64(h.srv.metrics.connected) == 0 })
	behindItsBack(t, st, func() {
		changed := app("a0000003", "n1", "2.2.2.2")
		value, err := encode(changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write(soon(t), store.Txn{Ops: []store.Op{{Key: "apps/a0000001", Delete: true}, {Key: "apps/a0000003", Value: value}}}); err != nil {
			t.Fatal(err)
		}
		_, r, err := st.Get(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		st.Compact(r)
	})
	st.SetDown(false)
	m := w.next(t)
	got := names(t, m.GetChanges())
	slices.Sort(got)
	if !slices.Equal(got, []string{"+apps/a0000003", "-apps/a0000001"}) || m.GetList() {
		t.Errorf("after the gap: %q, list %v", got, m.GetList())
	}
	// Whoever was elsewhere in the gap can't be brought here by changes.
	if changes, _ := h.watch(t, &registryv1.WatchRequest{Revision: head.GetRevision(), TableId: head.GetTableId()}).list(t); len(changes) != 2 {
		t.Errorf("list of %d, want 2", len(changes))
	}
}

// behindItsBack changes the store in a moment too short for the server to follow.
func behindItsBack(t *testing.T, st interface{ SetDown(bool) }, f func()) {
	t.Helper()
	st.SetDown(false)
	f()
	st.SetDown(true)
}

func TestStoreReplaced(t *testing.T) {
	st := memory(t)
	h := serve(t, st)
	h.write(t, 0, app("a0000001", "n1", "1.1.1.1"))
	w := h.watch(t, &registryv1.WatchRequest{})
	_, head := w.list(t)
	st.Wipe()
	_, err := w.stream.Recv()
	wantCode(t, err, codes.Unavailable)
	changes, fresh := h.watch(t, &registryv1.WatchRequest{Revision: head.GetRevision(), TableId: head.GetTableId()}).list(t)
	if len(changes) != 0 || fresh.GetTableId() == head.GetTableId() {
		t.Errorf("list of %d, table %q, was %q", len(changes), fresh.GetTableId(), head.GetTableId())
	}
}

func TestForeignRecordsAreIgnored(t *testing.T) {
	st := memory(t)
	h := serve(t, st)
	h.write(t, 0, app("a0000001", "n1", "1.1.1.1"))
	w := h.watch(t, &registryv1.WatchRequest{})
	w.list(t)
	wrong, err := encode(app("another", "n1", "1.1.1.1"))
	if err != nil {
		t.Fatal(err)
	}
	garbage := store.Txn{Ops: []store.Op{
		{Key: "apps/a0000001", Value: []byte{0xff}}, {Key: "apps/a0000002", Value: wrong}, {Key: "apps/", Value: wrong}, {Key: "else/x"}, {Key: "nodir"},
	}}
	if _, err := st.Write(soon(t), garbage); err != nil {
		t.Fatal(err)
	}
	if m := w.next(t); !slices.Equal(names(t, m.GetChanges()), []string{"-apps/a0000001"}) {
		t.Errorf("garbage became %v", m)
	}
	if got := h.keys(t); len(got) != 0 {
		t.Errorf("list with garbage: %q", got)
	}
	if got := testutil.ToFloat64(h.srv.metrics.invalid); got < 2 {
		t.Errorf("%v invalid records counted", got)
	}
}

// tableHandler is a consumer as services are: it keeps a table.
type tableHandler struct {
	mu sync.Mutex // guards t
	t  *watch.Table
}

func (h *tableHandler) Replace(t *watch.Table) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t = t
}

func (h *tableHandler) Apply(e watch.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t.Apply(e)
}

func (h *tableHandler) revision() ax.Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.t == nil {
		return 0
	}
	return h.t.Revision
}

// Whatever happens to store and streams, all consumers end with the table as it is.
func TestWatchersConverge(t *testing.T) {
	st := memory(t)
	h := serve(t, st)
	const consumers = 4
	handlers := make([]*tableHandler, consumers)
	for i := range handlers {
		handlers[i] = &tableHandler{}
		w, err := watch.New(watch.Config{
			Service: "test", Client: h.RegistryServiceClient, Handler: handlers[i], Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		run(t, w.Run)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		id := fmt.Sprintf("%08d", rng.IntN(50))
		var change any = app(id, "n1", fmt.Sprintf("1.1.1.%d", rng.IntN(250)+1))
		if rng.IntN(3) == 0 {
			change = axpb.Delete(registryv1.Kind_KIND_APP, id)
		}
		if _, err := h.Write(soon(t), &registryv1.WriteRequest{Changes: changesOf(change)}); err != nil {
			t.Fatal(err)
		}
		switch i % 80 {
		case 20:
			h.srv.table.mu.Lock()
			h.srv.table.cutAll(errSlow)
			h.srv.table.mu.Unlock()
		case 40:
			st.SetDown(true)
			st.SetDown(false)
		case 60:
			behindItsBack(t, st, func() {
				_, r, err := st.Get(soon(t))
				if err != nil {
					t.Fatal(err)
				}
				st.Compact(r)
			})
			st.SetDown(false)
		}
	}
	last := h.write(t, 0, app("99999999", "n1", "1.1.1.1"))
	resp, err := h.List(soon(t), &registryv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := watch.NewTable()
	for _, p := range resp.GetRecords() {
		r, err := axpb.RecordFrom(p)
		if err != nil {
			t.Fatal(err)
		}
		want.Apply(watch.Event{Changes: []watch.Change{watch.Change(r)}})
	}
	for i, c := range handlers {
		eventually(t, fmt.Sprintf("consumer %d is up to date", i), func() bool { return int64(c.revision()) >= last })
		c.mu.Lock()
		if d := c.t.Diff(want); len(d.Changes) != 0 {
			t.Errorf("consumer %d differs: %v", i, d.Changes)
		}
		c.mu.Unlock()
	}
}
