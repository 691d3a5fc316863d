package publish

import (
	"container/list"
	"reflect"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/trace"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/opentracing/opentracing-go"
)

// key names a record of ours.
type key struct {
	kind registryv1.Kind
	id   string
}

func nodeKey(name ax.NodeName) key { return key{registryv1.Kind_KIND_NODE, string(name)} }

func appKey(id ax.AppID) key { return key{registryv1.Kind_KIND_APP, string(id)} }

func endpointKey(id ax.EndpointID) key { return key{registryv1.Kind_KIND_ENDPOINT, string(id)} }

// desired is what should be in the table, and what is to be done for it. It is bounded by what the node runs and what
// has been sent: a record that comes and goes before it was sent leaves nothing behind.
type desired struct {
	// mu guards everything below.
	mu       sync.Mutex
	node     ax.Node               // whose table it is
	values   map[key]any           // ax.App, ax.Endpoint or, once relabelled, ax.Node: the table as it should be
	sent     map[key]struct{}      // what may be in the table
	queued   map[key]*list.Element // what is to be written or, if it has no value, deleted
	queue    *list.List            // of queueEntry, oldest first
	inFlight int                   // taken from the queue, outcome unknown
	restored bool                  // see Publisher.Restored
	swept    bool                  // what earlier runs have left in the table is in sent
	lease    int64                 // under which to write; 0: none
	last     int64                 // the last one granted
	expiry   time.Time             // of the lease, if it is not renewed again
}

type queueEntry struct {
	key   key
	since time.Time        // when the difference arose
	span  opentracing.Span // of the trace that began with it; nil if none did
}

// end ends the span of an entry that is dealt with.
func (e queueEntry) end() {
	if e.span != nil {
		e.span.Finish()
	}
}

func newDesired() desired {
	return desired{values: map[key]any{}, sent: map[key]struct{}{}, queued: map[key]*list.Element{}, queue: list.New()}
}

// put reports whether there is something to write.
func (d *desired) put(k key, value any) bool {
	if old, ok := d.values[k]; ok && reflect.DeepEqual(old, value) {
		return false
	}
	d.values[k] = value
	d.enqueue(k)
	return true
}

// drop reports whether there is something to delete.
func (d *desired) drop(k key) bool {
	delete(d.values, k)
	if _, ok := d.sent[k]; ok {
		d.enqueue(k)
		return true
	}
	if e, ok := d.queued[k]; ok {
		d.queue.Remove(e).(queueEntry).end() //nolint:forcetypeassert // nothing else is queued
		delete(d.queued, k)
	}
	return false
}

func (d *desired) enqueue(k key) {
	if _, ok := d.queued[k]; !ok {
		d.queued[k] = d.queue.PushBack(queueEntry{key: k, since: time.Now()})
	}
}

// begin begins a trace with what was just queued for an endpoint, unless one has begun with it already.
func (d *desired) begin(k key, e ax.Endpoint, t opentracing.Tracer) {
	element, ok := d.queued[k]
	if !ok {
		return
	}
	entry := element.Value.(queueEntry) //nolint:forcetypeassert // nothing else is queued
	if entry.span == nil {
		entry.span = t.StartSpan("listen", opentracing.Tags{
			"app": string(e.App), "node": string(e.Node), "service": e.Service.String(), "protocol": e.Proto.String(),
		})
		element.Value = entry
	}
}

func (d *desired) pending() int { return d.queue.Len() + d.inFlight }

// granted begins a lease: everything is to be written again.
func (d *desired) granted(lease int64, ttl time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lease, d.last, d.expiry = lease, lease, time.Now().Add(ttl)
	for k := range d.values {
		d.enqueue(k)
	}
}

// renewed notes that the lease lives on.
func (d *desired) renewed(lease int64, ttl time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lease == lease {
		d.expiry = time.Now().Add(ttl)
	}
}

// giveUp forgets the lease: it is gone, or what is written under it is unknown.
func (d *desired) giveUp(lease int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lease == lease {
		d.lease = 0
	}
}

func (d *desired) currentLease() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lease
}

func (d *desired) lastLease() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// found enters records of this node that are in the table.
func (d *desired) found(keys []key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swept = true
	for _, k := range keys {
		d.sent[k] = struct{}{}
		if _, ok := d.values[k]; !ok && d.restored {
			d.enqueue(k)
		}
	}
}

func (d *desired) isSwept() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.swept
}

// change is a write that was taken from the queue.
type change struct {
	queueEntry
	value any // nil: deletion
}

func (c change) proto(t opentracing.Tracer) *registryv1.Change {
	if c.value == nil {
		return axpb.Delete(c.key.kind, c.key.id)
	}
	p := axpb.Put(c.value)
	p.GetPut().TraceParent = trace.Parent(t, c.span)
	return p
}

// take removes up to n changes from the queue, oldest first; done or requeue must follow.
func (d *desired) take(n int) []change {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []change
	for e := d.queue.Front(); e != nil && len(out) < n; e = d.queue.Front() {
		entry := d.queue.Remove(e).(queueEntry)
		delete(d.queued, entry.key)
		value := d.values[entry.key]
		if value != nil {
			d.sent[entry.key] = struct{}{}
		}
		out = append(out, change{entry, value})
	}
	d.inFlight += len(out)
	return out
}

// done says that changes are in the table, or were refused for good.
func (d *desired) done(changes []change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight -= len(changes)
	for _, c := range changes {
		c.end()
		// Nobody else writes: if it was put again since, it is in the queue and will be in sent.
		if c.value == nil {
			delete(d.sent, c.key)
		}
	}
}

// requeue puts changes back in front: they may have taken place or not. What has changed since is queued already.
func (d *desired) requeue(changes []change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight -= len(changes)
	for i := len(changes) - 1; i >= 0; i-- {
		entry := changes[i].queueEntry
		if old, ok := d.queued[entry.key]; ok {
			d.queue.Remove(old).(queueEntry).end() //nolint:forcetypeassert // nothing else is queued
		}
		d.queued[entry.key] = d.queue.PushFront(entry)
	}
}
