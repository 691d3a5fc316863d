package build

import (
	"maps"
	"net/netip"
	"reflect"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
)

// touched is what the changes of one event concern: each is output once at its end, however often it was changed.
type touched struct {
	services map[route.ServiceKey]struct{}
	claims   map[netip.Addr]struct{}
	nodes    map[ax.NodeName]struct{}
	policies map[string]struct{}
}

func newTouched() touched {
	return touched{map[route.ServiceKey]struct{}{}, map[netip.Addr]struct{}{}, map[ax.NodeName]struct{}{}, map[string]struct{}{}}
}

// touch notes services of a virtual service.
func (t touched) touch(proto ax.Protocol, v ax.VirtualService, ports []uint16) {
	for _, port := range ports {
		t.services[route.ServiceKey{Proto: proto, Addr: netip.AddrPortFrom(v.Addr, port)}] = struct{}{}
	}
}

// outsidePorts returns the ports at which a backend is reached even if nothing of the table listens there.
func outsidePorts(v ax.VirtualService, backend ax.Backend) []uint16 {
	if backend.Port != 0 {
		return []uint16{backend.Port}
	}
	var out []uint16
	for _, m := range v.Ports {
		if backend.External {
			out = append(out, m.Backend)
		}
	}
	return out
}

// change takes one change into the table and the indexes and notes what it concerns. Records written again as they
// were, as nodes do after an outage, concern nothing.
func (b *Builder) change(c watch.Change, t touched) {
	if c.Value != nil && reflect.DeepEqual(b.present(c.Kind, c.Key), c.Value) {
		return
	}
	switch c.Kind {
	case registryv1.Kind_KIND_NODE:
		t.nodes[ax.NodeName(c.Key)] = struct{}{}
	case registryv1.Kind_KIND_POLICY:
		t.policies[c.Key] = struct{}{}
	case registryv1.Kind_KIND_ADDRESS_CLAIM:
		if a, err := netip.ParseAddr(c.Key); err == nil {
			t.claims[a] = struct{}{}
		}
	case registryv1.Kind_KIND_ENDPOINT:
		b.removeEndpoint(ax.EndpointID(c.Key), t)
		if e, ok := c.Value.(ax.Endpoint); ok {
			b.addEndpoint(&e, t)
		}
	case registryv1.Kind_KIND_VIRTUAL_SERVICE:
		b.removeVirtualService(c.Key, t)
		if v, ok := c.Value.(ax.VirtualService); ok {
			b.addVirtualService(v, t)
		}
	}
	b.table.Apply(watch.Event{Changes: []watch.Change{c}})
}

// present returns the record that a change replaces; the zero value of its type if there is none.
func (b *Builder) present(kind registryv1.Kind, key string) any {
	switch kind {
	case registryv1.Kind_KIND_NODE:
		return b.table.Nodes[ax.NodeName(key)]
	case registryv1.Kind_KIND_ENDPOINT:
		return b.table.Endpoints[ax.EndpointID(key)]
	case registryv1.Kind_KIND_VIRTUAL_SERVICE:
		return b.table.VirtualServices[key]
	case registryv1.Kind_KIND_POLICY:
		return b.table.Policies[key]
	}
	return nil // other kinds cost nothing to take again
}

func (b *Builder) addEndpoint(e *ax.Endpoint, t touched) {
	key := route.ServiceKey{Proto: e.Proto, Addr: e.Service}
	b.endpoints[e.ID] = e
	if b.direct[key] == nil {
		b.direct[key] = map[ax.EndpointID]*ax.Endpoint{}
		b.ports.add(key.Addr.Addr(), key)
	}
	b.direct[key][e.ID] = e
	b.touch(key, t)
}

func (b *Builder) removeEndpoint(id ax.EndpointID, t touched) {
	e, ok := b.endpoints[id]
	if !ok {
		return
	}
	key := route.ServiceKey{Proto: e.Proto, Addr: e.Service}
	delete(b.endpoints, id)
	if delete(b.direct[key], id); len(b.direct[key]) == 0 {
		delete(b.direct, key)
		b.ports.remove(key.Addr.Addr(), key)
	}
	b.touch(key, t)
}

// touch notes the service at an address where an endpoint came or went, and the virtual services that it backs.
func (b *Builder) touch(key route.ServiceKey, t touched) {
	t.services[key] = struct{}{}
	for name := range b.backed[key.Addr.Addr()] {
		v := b.table.VirtualServices[name]
		for _, backend := range v.Backends {
			if backend.Addr == key.Addr.Addr() {
				t.touch(key.Proto, v, v.VirtualPorts(backend, key.Addr.Port()))
			}
		}
	}
}

func (b *Builder) addVirtualService(v ax.VirtualService, t touched) {
	if !v.Addr.IsValid() {
		return // not allocated yet
	}
	b.virtual.add(v.Addr, v.Name)
	for _, backend := range v.Backends {
		b.backed.add(backend.Addr, v.Name)
	}
	b.touchVirtualService(v, t)
}

func (b *Builder) removeVirtualService(name string, t touched) {
	v, ok := b.table.VirtualServices[name]
	if !ok || !v.Addr.IsValid() {
		return
	}
	b.virtual.remove(v.Addr, name)
	for _, backend := range v.Backends {
		b.backed.remove(backend.Addr, name)
	}
	b.touchVirtualService(v, t)
}

// touchVirtualService notes every service that a virtual service may have, hide or share with another one.
func (b *Builder) touchVirtualService(v ax.VirtualService, t touched) {
	t.claims[v.Addr] = struct{}{}
	maps.Copy(t.services, b.ports[v.Addr])
	maps.Copy(t.services, b.served[v.Addr])
	for _, backend := range v.Backends {
		for key := range b.ports[backend.Addr] {
			t.touch(key.Proto, v, v.VirtualPorts(backend, key.Addr.Port()))
		}
		for _, port := range outsidePorts(v, backend) {
			for _, proto := range []ax.Protocol{ax.TCP, ax.UDP} {
				t.touch(proto, v, v.VirtualPorts(backend, port))
			}
		}
	}
}
