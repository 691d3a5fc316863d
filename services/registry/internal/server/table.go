package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"appswitch.io/services/registry/internal/store"
)

// Why a watcher is cut off.
var (
	errSlow     = errors.New("watcher is too slow: resume from the last revision seen")
	errNewTable = errors.New("the table was replaced by another one: start over")
	errCrowded  = errors.New("too many watchers")
)

// entry is a record in the table, ready to be sent; immutable.
type entry struct {
	value any // ax.Node and so on
	put   *registryv1.Change
	lease store.LeaseID
}

// batch is the changes of one revision; immutable and shared by all watchers.
type batch struct {
	revision ax.Revision
	kinds    kindSet
	changes  []*registryv1.Change
	ids      []recordID // of the changes, in the same order
}

// kindSet is a set of kinds, a bit for each.
type kindSet uint32

func setOf(kinds ...registryv1.Kind) kindSet {
	var s kindSet
	for _, k := range kinds {
		s |= 1 << uint(k)
	}
	return s
}

func (s kindSet) has(k registryv1.Kind) bool { return s&setOf(k) != 0 }

// subscriber is a watcher's place in the fan-out.
type subscriber struct {
	queue chan *batch
	cut   chan struct{} // closed by the table, under its mutex, when the watcher is cut off
	why   error         // set before cut is closed
}

// table is the copy of the service table that feeds the watchers.
type table struct {
	metrics *metrics

	mu          sync.RWMutex // guards all below
	id          string       // of the store; empty until the first copy
	revision    ax.Revision
	records     map[recordID]entry
	listing     []*registryv1.Change // all records, made when first asked for at this revision
	superseded  map[store.LeaseID]bool
	history     []*batch    // revisions after base, oldest first
	historyOps  int         // changes in history
	base        ax.Revision // a watcher at base or later can resume
	subscribers map[*subscriber]struct{}
	advanced    chan struct{} // closed and replaced when the table moves
}

func newTable(m *metrics) *table {
	return &table{
		metrics: m, records: map[recordID]entry{}, superseded: map[store.LeaseID]bool{},
		subscribers: map[*subscriber]struct{}{}, advanced: make(chan struct{}),
	}
}

// apply moves the table by one transaction of the store and tells the watchers.
func (t *table) apply(revision ax.Revision, changes []change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if revision <= t.revision {
		return
	}
	b := &batch{revision: revision}
	for _, c := range changes {
		t.set(b, c)
	}
	t.revision = revision
	if len(b.changes) > 0 {
		t.remember(b)
		t.publish(b)
	}
	t.moved()
}

// replace makes the table what a list of the store says, and tells the watchers the difference.
func (t *table) replace(id string, revision ax.Revision, list []change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.id != id || revision < t.revision {
		t.records, t.superseded = map[recordID]entry{}, map[store.LeaseID]bool{}
		t.cutAll(errNewTable)
	}
	b := &batch{revision: revision}
	listed := map[recordID]bool{}
	t.superseded = map[store.LeaseID]bool{}
	for _, c := range list {
		listed[c.id] = true
		if old, ok := t.records[c.id]; ok && c.superseded == 0 && sameRevision(old, c.entry) {
			continue
		}
		t.set(b, c)
	}
	for rid := range t.records {
		if !listed[rid] {
			t.set(b, change{id: rid})
		}
	}
	t.id, t.revision = id, revision
	// What happened between is not known in steps: whoever is not at this revision can't be brought there by changes.
	t.history, t.historyOps, t.base = nil, 0, revision
	if len(b.changes) > 0 {
		t.publish(b)
	}
	t.moved()
}

// record returns the record of an entry of the store, if the table has it as it was written there.
func (t *table) record(id recordID, kv store.KV) (entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e, ok := t.records[id]
	return e, ok && e.put.GetPut().GetRevision() == int64(kv.Revision) && e.lease == kv.Lease
}

func sameRevision(a, b entry) bool {
	return a.put.GetPut().GetRevision() == b.put.GetPut().GetRevision() && a.lease == b.lease
}

// set carries out a change and adds it to the batch. The deletion of what is not there is dropped.
func (t *table) set(b *batch, c change) {
	switch {
	case c.superseded != 0 && c.deleted:
		delete(t.superseded, c.superseded)
		return
	case c.superseded != 0:
		t.superseded[c.superseded] = true
		return
	case c.entry.put == nil:
		if _, ok := t.records[c.id]; !ok {
			return
		}
		delete(t.records, c.id)
		b.changes = append(b.changes, deletion(c.id))
	default:
		t.records[c.id] = c.entry
		b.changes = append(b.changes, c.entry.put)
	}
	b.ids = append(b.ids, c.id)
	b.kinds |= setOf(c.id.kind)
}

func deletion(id recordID) *registryv1.Change {
	return &registryv1.Change{Op: &registryv1.Change_Delete{Delete: &registryv1.RecordKey{Kind: id.kind, Key: id.key}}}
}

// remember keeps a batch for watchers that resume, and forgets the oldest ones for it.
func (t *table) remember(b *batch) {
	t.history = append(t.history, b)
	t.historyOps += len(b.changes)
	for len(t.history) > MaxHistory || t.historyOps > MaxHistoryOps && len(t.history) > 1 {
		t.base = t.history[0].revision
		t.historyOps -= len(t.history[0].changes)
		t.history[0] = nil
		t.history = t.history[1:]
	}
}

// publish hands a batch to every watcher that has room for it and cuts off the others: none waits for another.
func (t *table) publish(b *batch) {
	for s := range t.subscribers {
		select {
		case s.queue <- b:
		default:
			t.metrics.cutOff.Inc()
			t.cutOff(s, errSlow)
		}
	}
}

func (t *table) cutOff(s *subscriber, why error) {
	if _, ok := t.subscribers[s]; ok {
		delete(t.subscribers, s)
		s.why = why
		close(s.cut)
	}
}

func (t *table) cutAll(why error) {
	for s := range t.subscribers {
		t.cutOff(s, why)
	}
}

func (t *table) moved() {
	t.listing = nil
	close(t.advanced)
	t.advanced = make(chan struct{})
	t.metrics.revision.Set(float64(t.revision))
	t.metrics.records.Set(float64(len(t.records)))
}

// start is what a watcher begins with.
type start struct {
	tableID  string
	revision ax.Revision
	list     []*registryv1.Change // of a new list, if full: records of all kinds, shared
	resume   []*batch             // else what it has missed
	full     bool
}

// subscribe enters a watcher at the present revision and says what it must be sent first. No change is lost in
// between, nor sent twice.
func (t *table) subscribe(tableID string, revision ax.Revision) (*subscriber, start, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.subscribers) >= MaxWatchers {
		return nil, start{}, errCrowded
	}
	sub := &subscriber{queue: make(chan *batch, QueueLength), cut: make(chan struct{})}
	t.subscribers[sub] = struct{}{}
	st := start{tableID: t.id, revision: t.revision}
	if st.full = revision <= 0 || tableID != t.id || revision < t.base || revision > t.revision; !st.full {
		for _, b := range t.history {
			if b.revision > revision {
				st.resume = append(st.resume, b)
			}
		}
		return sub, st, nil
	}
	if t.listing == nil {
		t.listing = make([]*registryv1.Change, 0, len(t.records))
		for _, e := range t.records {
			t.listing = append(t.listing, e.put)
		}
	}
	st.list = t.listing
	return sub, st, nil
}

// lag returns the length of the longest queue.
func (t *table) lag() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	longest := 0
	for s := range t.subscribers {
		longest = max(longest, len(s.queue))
	}
	return longest
}

func (t *table) unsubscribe(s *subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.subscribers, s)
}

// await waits until the table has a first copy and has come to a revision of the table called id; it gives up silently
// after syncPatience and reports whether there is a copy at all.
func (t *table) await(ctx context.Context, id string, revision ax.Revision) bool {
	timeout := time.NewTimer(syncPatience)
	defer timeout.Stop()
	for {
		t.mu.RLock()
		have, advanced := t.id != "", t.advanced
		enough := have && (id != t.id || revision <= t.revision)
		t.mu.RUnlock()
		if enough {
			return true
		}
		select {
		case <-advanced:
		case <-timeout.C:
			return have
		case <-ctx.Done():
			return have
		}
	}
}

// has reports whether a record is in the copy.
func (t *table) has(id recordID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := t.records[id]
	return ok
}

func (t *table) isSuperseded(lease store.LeaseID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.superseded[lease]
}

// at returns what the copy is of.
func (t *table) at() (id string, revision ax.Revision) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.id, t.revision
}

// each calls f for every record of the kinds. f must not call the table.
func (t *table) each(kinds kindSet, f func(value any, revision ax.Revision)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for id, e := range t.records {
		if kinds.has(id.kind) {
			f(e.value, ax.Revision(e.put.GetPut().GetRevision()))
		}
	}
}
