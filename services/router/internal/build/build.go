// Package build turns the service table into routes: which endpoints answer at which virtual address. It is pure.
//
// Invariant: whatever the order of events, the deltas of a [Builder], applied in order, lead to the same snapshot as
// the one delta of a new Builder that is given the resulting table; each touches only what changed. Start reading at
// [Builder.Apply] and [Builder.resolve].
package build

import (
	"maps"
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"appswitch.io/internal/watch"
)

// Builder follows the service table. It is not safe for concurrent use.
type Builder struct {
	table *watch.Table

	endpoints map[ax.EndpointID]*ax.Endpoint                      // of table, shared by all services that have them
	direct    map[route.ServiceKey]map[ax.EndpointID]*ax.Endpoint // by the address at which they listen
	ports     index[route.ServiceKey]                             // keys of direct, by address
	virtual   index[string]                                       // virtual services, by their address
	backed    index[string]                                       // virtual services, by the address of a backend
	served    index[route.ServiceKey]                             // services as they were last output, by address
	claimed   map[netip.Addr]struct{}                             // claims as they were last output
}

// index is a set of things by address.
type index[T comparable] map[netip.Addr]map[T]struct{}

func (x index[T]) add(a netip.Addr, v T) {
	if x[a] == nil {
		x[a] = map[T]struct{}{}
	}
	x[a][v] = struct{}{}
}

func (x index[T]) remove(a netip.Addr, v T) {
	if delete(x[a], v); len(x[a]) == 0 {
		delete(x, a)
	}
}

// New returns a Builder that knows an empty table.
func New() *Builder {
	return &Builder{
		table:     watch.NewTable(),
		endpoints: map[ax.EndpointID]*ax.Endpoint{},
		direct:    map[route.ServiceKey]map[ax.EndpointID]*ax.Endpoint{},
		ports:     index[route.ServiceKey]{},
		virtual:   index[string]{},
		backed:    index[string]{},
		served:    index[route.ServiceKey]{},
		claimed:   map[netip.Addr]struct{}{},
	}
}

// Replace returns the delta to a whole table, as small as if the changes in between had been seen.
func (b *Builder) Replace(t *watch.Table) route.Delta { return b.Apply(b.table.Diff(t)) }

// Apply returns the delta for the changes of one revision.
func (b *Builder) Apply(e watch.Event) route.Delta {
	t := newTouched()
	for _, c := range e.Changes {
		b.change(c, t)
	}
	b.table.Revision = e.Revision
	d := route.Delta{Revision: e.Revision}
	for key := range t.services {
		b.output(key, &d)
	}
	for a := range t.claims {
		b.outputClaim(a, &d)
	}
	for name := range t.nodes {
		if n, ok := b.table.Nodes[name]; ok {
			d.Nodes = append(d.Nodes, n)
		} else {
			d.RemovedNodes = append(d.RemovedNodes, name)
		}
	}
	for name := range t.policies {
		if p, ok := b.table.Policies[name]; ok {
			d.Policies = append(d.Policies, p)
		} else {
			d.RemovedPolicies = append(d.RemovedPolicies, name)
		}
	}
	return d
}

func (b *Builder) output(key route.ServiceKey, d *route.Delta) {
	svc := b.resolve(key)
	_, was := b.served[key.Addr.Addr()][key]
	switch {
	case len(svc.Endpoints) > 0:
		b.served.add(key.Addr.Addr(), key)
		d.Upserts = append(d.Upserts, svc)
	case was:
		b.served.remove(key.Addr.Addr(), key)
		d.Removes = append(d.Removes, key)
	}
}

func (b *Builder) outputClaim(a netip.Addr, d *route.Delta) {
	_, was := b.claimed[a]
	_, is := b.table.Claims[a]
	is = is || len(b.virtual[a]) > 0
	switch {
	case is && !was:
		b.claimed[a] = struct{}{}
		d.Claims = append(d.Claims, a)
	case was && !is:
		delete(b.claimed, a)
		d.ReleasedClaims = append(d.ReleasedClaims, a)
	}
}

// resolve says which endpoints answer at an address. Where a virtual service covers the port, these are its backends',
// and only they: so a virtual service on the address of a running application redirects it, unless it names that address
// as a backend as well. Elsewhere they are those that listen there. A virtual service is never the backend of another.
func (b *Builder) resolve(key route.ServiceKey) route.Service {
	svc := route.Service{Key: key, Balancer: ax.Random}
	found := weighed{}
	covered := false
	for _, name := range slices.Sorted(maps.Keys(b.virtual[key.Addr.Addr()])) {
		v := b.table.VirtualServices[name]
		if !v.Covers(key.Addr.Port()) {
			continue
		}
		if !covered { // the first by name speaks for all
			svc.Balancer, svc.Affinity, svc.Source = v.Balancer, v.Affinity, v.Source
		}
		covered = true
		for _, backend := range v.Backends {
			for _, port := range v.BackendPorts(backend, key.Addr.Port()) {
				b.addBackend(found, key.Proto, backend, port)
			}
		}
	}
	if !covered {
		for _, e := range b.direct[key] {
			found.add(e, 1)
		}
	}
	svc.Endpoints, svc.Weights = found.list()
	return svc
}

// addBackend adds the endpoints that a backend has at a port: those that listen there, or the address itself if it may
// be outside AppSwitch.
func (b *Builder) addBackend(found weighed, proto ax.Protocol, backend ax.Backend, port uint16) {
	at := netip.AddrPortFrom(backend.Addr, port)
	inside := b.direct[route.ServiceKey{Proto: proto, Addr: at}]
	if backend.External {
		inside = nil
	}
	for _, e := range inside {
		found.add(e, backend.Weight)
	}
	if len(inside) == 0 && (backend.External || backend.Port != 0) {
		found.add(ax.ExternalEndpoint(proto, at), backend.Weight)
	}
}
