package watch

import (
	"maps"
	"net/netip"
	"reflect"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
)

// Table is the service table at one revision, as typed values. Values are immutable; the maps belong to whoever was
// given the Table. The zero Table is empty and ready for reading, not for Apply: use NewTable.
type Table struct {
	Revision        ax.Revision
	Nodes           map[ax.NodeName]ax.Node
	Apps            map[ax.AppID]ax.App
	Endpoints       map[ax.EndpointID]ax.Endpoint
	VirtualServices map[string]ax.VirtualService
	Policies        map[string]ax.Policy
	Claims          map[netip.Addr]ax.Claim
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{
		Nodes:           map[ax.NodeName]ax.Node{},
		Apps:            map[ax.AppID]ax.App{},
		Endpoints:       map[ax.EndpointID]ax.Endpoint{},
		VirtualServices: map[string]ax.VirtualService{},
		Policies:        map[string]ax.Policy{},
		Claims:          map[netip.Addr]ax.Claim{},
	}
}

// Change is one record put or, with a nil Value, deleted.
type Change struct {
	Kind  registryv1.Kind
	Key   string // key within the kind; for a claim the address in canonical text form
	Value any    // ax.Node, ax.App, ax.Endpoint, ax.VirtualService, ax.Policy or ax.Claim by Kind; nil: deleted
	Trace string // traceparent of the trace in which it was put; empty if there was none
}

// Event is the changes of one revision, in order. It may have none: then only the revision moves.
type Event struct {
	Revision ax.Revision
	Changes  []Change
	Traces   []string // in which the changes were made, as traceparents, at most trace.MaxParents
}

// Len returns the number of records.
func (t *Table) Len() int {
	return len(t.Nodes) + len(t.Apps) + len(t.Endpoints) + len(t.VirtualServices) + len(t.Policies) + len(t.Claims)
}

// Clone returns a copy with maps of its own.
func (t *Table) Clone() *Table {
	return &Table{
		Revision: t.Revision, Nodes: maps.Clone(t.Nodes), Apps: maps.Clone(t.Apps), Endpoints: maps.Clone(t.Endpoints),
		VirtualServices: maps.Clone(t.VirtualServices), Policies: maps.Clone(t.Policies), Claims: maps.Clone(t.Claims),
	}
}

// Apply moves the table to the event's revision.
func (t *Table) Apply(e Event) {
	for _, c := range e.Changes {
		t.set(c)
	}
	t.Revision = e.Revision
}

func (t *Table) set(c Change) {
	switch v := c.Value.(type) {
	case nil:
		t.remove(c.Kind, c.Key)
	case ax.Node:
		t.Nodes[v.Name] = v
	case ax.App:
		t.Apps[v.ID] = v
	case ax.Endpoint:
		t.Endpoints[v.ID] = v
	case ax.VirtualService:
		t.VirtualServices[v.Name] = v
	case ax.Policy:
		t.Policies[v.Name] = v
	case ax.Claim:
		t.Claims[v.Addr] = v
	}
}

func (t *Table) remove(kind registryv1.Kind, key string) {
	switch kind {
	case registryv1.Kind_KIND_NODE:
		delete(t.Nodes, ax.NodeName(key))
	case registryv1.Kind_KIND_APP:
		delete(t.Apps, ax.AppID(key))
	case registryv1.Kind_KIND_ENDPOINT:
		delete(t.Endpoints, ax.EndpointID(key))
	case registryv1.Kind_KIND_VIRTUAL_SERVICE:
		delete(t.VirtualServices, key)
	case registryv1.Kind_KIND_POLICY:
		delete(t.Policies, key)
	case registryv1.Kind_KIND_ADDRESS_CLAIM:
		if a, err := netip.ParseAddr(key); err == nil {
			delete(t.Claims, a)
		}
	}
}

// Diff returns the changes that take t to next, deletions first within a kind: for a consumer that would rather see
// a list after a reconnect as an Event.
func (t *Table) Diff(next *Table) Event {
	e := Event{Revision: next.Revision}
	e.Changes = diff(e.Changes, registryv1.Kind_KIND_NODE, t.Nodes, next.Nodes, func(k ax.NodeName) string { return string(k) })
	e.Changes = diff(e.Changes, registryv1.Kind_KIND_APP, t.Apps, next.Apps, func(k ax.AppID) string { return string(k) })
	e.Changes = diff(e.Changes, registryv1.Kind_KIND_ENDPOINT, t.Endpoints, next.Endpoints, func(k ax.EndpointID) string { return string(k) })
	e.Changes = diff(e.Changes, registryv1.Kind_KIND_VIRTUAL_SERVICE, t.VirtualServices, next.VirtualServices, func(k string) string { return k })
	e.Changes = diff(e.Changes, registryv1.Kind_KIND_POLICY, t.Policies, next.Policies, func(k string) string { return k })
	e.Changes = diff(e.Changes, registryv1.Kind_KIND_ADDRESS_CLAIM, t.Claims, next.Claims, netip.Addr.String)
	return e
}

func diff[K comparable, V any](out []Change, kind registryv1.Kind, old, next map[K]V, text func(K) string) []Change {
	for k := range old {
		if _, ok := next[k]; !ok {
			out = append(out, Change{Kind: kind, Key: text(k)})
		}
	}
	for k, v := range next {
		if o, ok := old[k]; !ok || !reflect.DeepEqual(o, v) {
			out = append(out, Change{Kind: kind, Key: text(k), Value: v})
		}
	}
	return out
}

// changeFrom reads a change from the wire. A put whose value does not validate becomes a deletion, with the error:
// what a consumer knows is then the same whether it followed the changes or took a new list. A change that can't be
// attributed to a record at all has Kind KIND_UNSPECIFIED.
func changeFrom(p *registryv1.Change) (Change, error) {
	if p.GetPut() != nil {
		r, err := axpb.RecordFrom(p.GetPut())
		if err != nil && (r.Key == "" || len(r.Key) > axpb.MaxKeyLength) {
			return Change{}, err
		}
		return Change(r), err
	}
	r, err := axpb.RecordKeyFrom(p.GetDelete())
	if err != nil {
		return Change{}, err
	}
	return Change(r), nil
}
