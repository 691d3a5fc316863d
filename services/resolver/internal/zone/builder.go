package zone

import (
	"maps"
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// Builder follows the service table and makes a Zone of it whenever asked. It belongs to one goroutine.
//
// It counts what the records contribute to each name and address, so that neither a name with ten thousand servers
// nor a table of a million names makes one change expensive.
type Builder struct {
	zone  *Zone
	self  []netip.Addr // addresses of the resolver, the target of the domain's NS record
	table map[ax.EndpointID]ax.Endpoint
	vs    map[string]ax.VirtualService
	claim map[netip.Addr]struct{}

	names map[string]*named
	addrs map[netip.Addr]*addressed
	inner map[string]int // number of names below

	dirtyNames map[string]struct{}
	dirtyAddrs map[netip.Addr]struct{}
	dirtyInner map[string]struct{}
}

// named is what the table says about one name.
type named struct {
	services map[Service]refs
	vs       map[string]struct{} // virtual services of that name; their own spelling
}

// addressed is what the table says about one address.
type addressed struct {
	services  map[Service]refs
	backendOf map[string]struct{} // virtual services that balance over it
	virtual   int                 // endpoints that have it as an address of their own, not their node's
	claimed   bool
	names     map[string]struct{}
}

// refs counts endpoints. Stale ones matter only where there are no others.
type refs struct{ fresh, stale int }

func (r refs) add(stale bool, n int) refs {
	if stale {
		r.stale += n
	} else {
		r.fresh += n
	}
	return r
}

// NewBuilder starts with an empty table. The origin is the domain as ParseDomain returns it; self are the addresses
// of the resolver.
func NewBuilder(origin string, self []netip.Addr) *Builder {
	b := &Builder{
		zone:  &Zone{origin: origin},
		table: map[ax.EndpointID]ax.Endpoint{}, vs: map[string]ax.VirtualService{}, claim: map[netip.Addr]struct{}{},
		names: map[string]*named{}, addrs: map[netip.Addr]*addressed{}, inner: map[string]int{},
		dirtyNames: map[string]struct{}{}, dirtyAddrs: map[netip.Addr]struct{}{}, dirtyInner: map[string]struct{}{},
	}
	for _, a := range self {
		if a.IsValid() && !a.IsUnspecified() && !slices.Contains(b.self, a) {
			b.self = append(b.self, a)
		}
	}
	if len(b.self) > 0 {
		b.name(nameserver)
	}
	return b
}

// PutEndpoint adds or replaces an endpoint. The error says why its name can't be looked up; the rest is done.
func (b *Builder) PutEndpoint(e ax.Endpoint) error {
	old, known := b.table[e.ID]
	if known && old.Name == e.Name && old.Service == e.Service && old.Proto == e.Proto && old.Host == e.Host && old.Stale == e.Stale {
		return nil
	}
	if known {
		_ = b.count(old, -1) // whoever put it was told
	}
	b.table[e.ID] = e
	return b.count(e, 1)
}

// DeleteEndpoint removes an endpoint, if it is there.
func (b *Builder) DeleteEndpoint(id ax.EndpointID) {
	if e, known := b.table[id]; known {
		delete(b.table, id)
		_ = b.count(e, -1) // whoever put it was told
	}
}

// count adds n, 1 or -1, to what an endpoint contributes to.
func (b *Builder) count(e ax.Endpoint, n int) error {
	s := Service{Proto: e.Proto, Addr: e.Service}
	addr := s.Addr.Addr()
	at := b.address(addr)
	bump(at.services, s, e.Stale, n)
	if e.Service.Addr() != e.Host.Addr() {
		at.virtual += n
	}
	for vs := range at.backendOf {
		if bare, err := Bare(vs, b.zone.origin); err == nil {
			b.name(bare)
		}
	}
	if e.Name == "" {
		return nil
	}
	bare, err := Bare(e.Name, b.zone.origin)
	if err != nil {
		return err
	}
	bump(b.name(bare).services, s, e.Stale, n)
	return nil
}

func bump(m map[Service]refs, s Service, stale bool, n int) {
	r := m[s].add(stale, n)
	if r == (refs{}) {
		delete(m, s)
		return
	}
	m[s] = r
}

// PutVirtualService adds or replaces a virtual service. The error says why its name can't be looked up.
func (b *Builder) PutVirtualService(v ax.VirtualService) error {
	b.DeleteVirtualService(v.Name)
	b.vs[v.Name] = v
	bare, err := Bare(v.Name, b.zone.origin)
	if err != nil {
		return err
	}
	b.name(bare).vs[v.Name] = struct{}{}
	for _, backend := range v.Backends {
		b.address(backend.Addr).backendOf[v.Name] = struct{}{}
	}
	return nil
}

// DeleteVirtualService removes a virtual service, if it is there.
func (b *Builder) DeleteVirtualService(name string) {
	v, known := b.vs[name]
	if !known {
		return
	}
	delete(b.vs, name)
	bare, err := Bare(name, b.zone.origin)
	if err != nil {
		return // it never contributed
	}
	delete(b.name(bare).vs, name)
	for _, backend := range v.Backends {
		delete(b.address(backend.Addr).backendOf, name)
	}
}

// PutClaim marks an address as virtual: its reverse name is nobody else's to answer.
func (b *Builder) PutClaim(a netip.Addr) {
	b.claim[a] = struct{}{}
	b.address(a).claimed = true
}

// DeleteClaim ends that.
func (b *Builder) DeleteClaim(a netip.Addr) {
	delete(b.claim, a)
	b.address(a).claimed = false
}

// Retain drops every record for which keep says no: what a new list of the table doesn't have.
func (b *Builder) Retain(endpoint func(ax.EndpointID) bool, vs func(string) bool, claim func(netip.Addr) bool) {
	for id := range b.table {
		if !endpoint(id) {
			b.DeleteEndpoint(id)
		}
	}
	for name := range b.vs {
		if !vs(name) {
			b.DeleteVirtualService(name)
		}
	}
	for a := range b.claim {
		if !claim(a) {
			b.DeleteClaim(a)
		}
	}
}

// name returns what is known of a name, to be changed.
func (b *Builder) name(bare string) *named {
	b.dirtyNames[bare] = struct{}{}
	n := b.names[bare]
	if n == nil {
		n = &named{services: map[Service]refs{}, vs: map[string]struct{}{}}
		b.names[bare] = n
	}
	return n
}

// address returns what is known of an address, to be changed.
func (b *Builder) address(a netip.Addr) *addressed {
	b.dirtyAddrs[a] = struct{}{}
	at := b.addrs[a]
	if at == nil {
		at = &addressed{services: map[Service]refs{}, backendOf: map[string]struct{}{}, names: map[string]struct{}{}}
		b.addrs[a] = at
	}
	return at
}

// Zone returns the zone of the table as it is now, at this revision. Names that did not change keep their Host.
func (b *Builder) Zone(r ax.Revision) *Zone {
	next := *b.zone
	next.revision = r
	next.hosts = b.editHosts()
	next.inner = b.editInner()
	next.reverse = b.editReverse()
	b.zone = &next
	return b.zone
}

func (b *Builder) editHosts() cowMap[string, *Host] {
	hosts := b.zone.hosts.edit()
	for bare := range b.dirtyNames {
		was, existed := hosts.m.get(bare)
		is := b.host(bare)
		if is == nil {
			if existed {
				hosts.delete(bare)
				b.renamed(bare, was.Addrs, nil)
				b.countParents(bare, -1)
			}
			if n := b.names[bare]; n != nil && len(n.services) == 0 && len(n.vs) == 0 {
				delete(b.names, bare)
			}
			continue
		}
		if !existed {
			hosts.set(bare, is)
			b.renamed(bare, nil, is.Addrs)
			b.countParents(bare, 1)
			continue
		}
		if slices.Equal(was.Addrs, is.Addrs) && slices.Equal(was.Services, is.Services) {
			continue
		}
		hosts.set(bare, is)
		b.renamed(bare, was.Addrs, is.Addrs)
	}
	clear(b.dirtyNames)
	return hosts.m
}

// host puts a name together; nil if nothing carries it.
func (b *Builder) host(bare string) *Host {
	n := b.names[bare]
	addrs := map[netip.Addr]struct{}{}
	services := map[Service]struct{}{}
	for _, s := range preferred(n.services) {
		services[s] = struct{}{}
		addrs[s.Addr.Addr()] = struct{}{}
	}
	for name := range n.vs {
		v := b.vs[name]
		if !v.Addr.IsValid() {
			continue // not allocated yet
		}
		addrs[v.Addr] = struct{}{}
		for _, s := range b.offered(v) {
			services[s] = struct{}{}
		}
	}
	if bare == nameserver {
		for _, a := range b.self {
			addrs[a] = struct{}{}
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	return &Host{
		Name:     bare,
		Addrs:    slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare),
		Services: slices.SortedFunc(maps.Keys(services), compareServices),
	}
}

// preferred returns the services that have a fresh endpoint, or all if none has.
func preferred(in map[Service]refs) []Service {
	var fresh, stale []Service
	for s, r := range in {
		if r.fresh > 0 {
			fresh = append(fresh, s)
		} else {
			stale = append(stale, s)
		}
	}
	if len(fresh) > 0 {
		return fresh
	}
	return stale
}

// offered returns the services of a virtual service: its ports, with the protocols that its backends speak there (TCP
// while there are none), or without ports whatever the backends offer, at its own address.
func (b *Builder) offered(v ax.VirtualService) []Service {
	var out []Service
	for _, m := range v.Ports {
		found := false
		for _, proto := range []ax.Protocol{ax.TCP, ax.UDP} {
			if b.backed(v, proto, m.Virtual) {
				found = true
				out = append(out, Service{Proto: proto, Addr: netip.AddrPortFrom(v.Addr, m.Virtual)})
			}
		}
		if !found {
			out = append(out, Service{Proto: ax.TCP, Addr: netip.AddrPortFrom(v.Addr, m.Virtual)})
		}
	}
	if len(v.Ports) > 0 {
		return out
	}
	for _, backend := range v.Backends {
		found := false
		if at := b.addrs[backend.Addr]; at != nil {
			for s := range at.services {
				if port := s.Addr.Port(); backend.Port == 0 || backend.Port == port {
					found = true
					out = append(out, Service{Proto: s.Proto, Addr: netip.AddrPortFrom(v.Addr, port)})
				}
			}
		}
		if !found && backend.Port != 0 { // outside
			out = append(out, Service{Proto: ax.TCP, Addr: netip.AddrPortFrom(v.Addr, backend.Port)})
		}
	}
	return out
}

// backed reports whether a backend speaks a protocol where a virtual port leads.
func (b *Builder) backed(v ax.VirtualService, proto ax.Protocol, virtual uint16) bool {
	for _, backend := range v.Backends {
		at := b.addrs[backend.Addr]
		if at == nil {
			continue
		}
		for _, port := range v.BackendPorts(backend, virtual) {
			if _, ok := at.services[Service{Proto: proto, Addr: netip.AddrPortFrom(backend.Addr, port)}]; ok {
				return true
			}
		}
	}
	return false
}

// renamed keeps the reverse side of a name. The resolver's own name has none: node addresses are not ours.
func (b *Builder) renamed(bare string, was, is []netip.Addr) {
	if bare == nameserver {
		return
	}
	for _, a := range was {
		if _, still := slices.BinarySearchFunc(is, a, netip.Addr.Compare); !still {
			delete(b.address(a).names, bare)
		}
	}
	for _, a := range is {
		b.address(a).names[bare] = struct{}{}
	}
}

func (b *Builder) countParents(bare string, n int) {
	parents(bare, func(parent string) {
		b.inner[parent] += n
		if b.inner[parent] == 0 {
			delete(b.inner, parent)
		}
		b.dirtyInner[parent] = struct{}{}
	})
}

func (b *Builder) editInner() cowMap[string, struct{}] {
	inner := b.zone.inner.edit()
	for name := range b.dirtyInner {
		_, was := inner.m.get(name)
		switch is := b.inner[name]; {
		case is == 0:
			inner.delete(name)
		case !was:
			inner.set(name, struct{}{})
		}
	}
	clear(b.dirtyInner)
	return inner.m
}

func (b *Builder) editReverse() cowMap[netip.Addr, []string] {
	reverse := b.zone.reverse.edit()
	for a := range b.dirtyAddrs {
		at := b.addrs[a]
		if at.virtual == 0 && !at.claimed && len(at.names) == 0 {
			reverse.delete(a)
			if len(at.services) == 0 && len(at.backendOf) == 0 {
				delete(b.addrs, a)
			}
			continue
		}
		is := slices.Sorted(maps.Keys(at.names))
		if was, ok := reverse.m.get(a); !ok || !slices.Equal(was, is) {
			reverse.set(a, is)
		}
	}
	clear(b.dirtyAddrs)
	return reverse.m
}
