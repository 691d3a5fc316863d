package route

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// Apply returns the snapshot that a delta leads to. What the delta does not touch is shared; the delta itself is kept
// where possible and must not be changed afterwards.
func (s *Snapshot) Apply(d Delta) *Snapshot {
	next := *s
	if d.Full {
		next = Snapshot{suspects: s.suspects}
	}
	next.revision = d.Revision
	e := editor{
		s:        &next,
		services: edit[ServiceKey, *service]{m: &next.services},
		refs:     map[hostKey][]hostRef{},
		addrs:    edit[netip.Addr, address]{m: &next.addrs},
		nodes:    edit[ax.NodeName, *ax.Node]{m: &next.nodes},
	}
	for _, key := range d.Removes {
		e.removeService(ServiceKey{key.Proto, plainAddrPort(key.Addr)})
	}
	for _, svc := range d.Upserts {
		e.putService(svc)
	}
	for _, a := range d.ReleasedClaims {
		e.address(plain(a), func(entry *address) { entry.claimed = false })
	}
	for _, a := range d.Claims {
		e.address(plain(a), func(entry *address) { entry.claimed = true })
	}
	for _, name := range d.RemovedNodes {
		e.removeNode(name)
	}
	for _, n := range d.Nodes {
		e.putNode(n)
	}
	e.putHosts()
	next.policies = applyPolicies(next.policies, d)
	return &next
}

// editor changes a snapshot that nobody else sees yet.
type editor struct {
	s        *Snapshot
	services edit[ServiceKey, *service]
	refs     map[hostKey][]hostRef // of the hosts that were touched, in any order
	addrs    edit[netip.Addr, address]
	nodes    edit[ax.NodeName, *ax.Node]
}

func (e *editor) address(a netip.Addr, change func(*address)) {
	h := hashAddr(a)
	was, known := e.s.addrs.get(h, a)
	entry := was
	change(&entry)
	switch {
	case !entry.zero():
		e.addrs.set(h, a, entry)
	case known:
		e.addrs.delete(h, a)
	}
}

func (e *editor) putService(in Service) {
	in.Key.Addr = plainAddrPort(in.Key.Addr)
	in = canonical(in)
	e.removeService(in.Key)
	if len(in.Endpoints) == 0 {
		return
	}
	e.services.set(hashAddrPort(in.Key.Proto, in.Key.Addr), in.Key, newService(in))
	e.address(in.Key.Addr.Addr(), func(entry *address) { entry.services++ })
	for _, ep := range in.Endpoints {
		e.addHost(hostRef{ep, in.Key})
	}
}

func (e *editor) removeService(key ServiceKey) {
	h := hashAddrPort(key.Proto, key.Addr)
	old, ok := e.s.services.get(h, key)
	if !ok {
		return
	}
	e.services.delete(h, key)
	e.address(key.Addr.Addr(), func(entry *address) { entry.services-- })
	for _, ep := range old.Endpoints {
		e.removeHost(hostRef{ep, key})
	}
}

// touchHost returns the references to a real address, for changing.
func (e *editor) touchHost(ep *ax.Endpoint) (hostKey, []hostRef) {
	key := hostKey{ep.Proto, plainAddrPort(ep.Host)}
	refs, touched := e.refs[key]
	if old, ok := e.s.hosts.get(hashAddrPort(key.proto, key.addr), key); ok && !touched {
		refs = slices.Clone(old.refs)
	}
	return key, refs
}

func (e *editor) addHost(ref hostRef) {
	if ref.endpoint.External {
		return // whoever connects there directly leaves the cluster
	}
	key, refs := e.touchHost(ref.endpoint)
	e.refs[key] = append(refs, ref)
}

func (e *editor) removeHost(ref hostRef) {
	if ref.endpoint.External {
		return
	}
	key, refs := e.touchHost(ref.endpoint)
	e.refs[key] = slices.DeleteFunc(refs, func(r hostRef) bool { return compareRefs(r, ref) == 0 })
}

// putHosts stores the hosts that were touched, each once, however many services refer to it.
func (e *editor) putHosts() {
	hosts := edit[hostKey, *host]{m: &e.s.hosts}
	for key, refs := range e.refs {
		h := hashAddrPort(key.proto, key.addr)
		_, was := e.s.hosts.get(h, key)
		switch {
		case len(refs) > 0:
			slices.SortFunc(refs, compareRefs)
			hosts.set(h, key, newHost(refs))
			if !was {
				e.address(key.addr.Addr(), func(entry *address) { entry.hosts++ })
			}
		case was:
			hosts.delete(h, key)
			e.address(key.addr.Addr(), func(entry *address) { entry.hosts-- })
		}
	}
}

func newHost(refs []hostRef) *host {
	endpoints := make([]*ax.Endpoint, 0, len(refs))
	for i, r := range refs {
		if i == 0 || refs[i-1].endpoint.ID != r.endpoint.ID {
			endpoints = append(endpoints, r.endpoint)
		}
	}
	return &host{refs: refs, group: newGroup(endpoints)}
}

func compareRefs(a, b hostRef) int {
	return cmp.Or(cmp.Compare(a.endpoint.ID, b.endpoint.ID), a.service.Compare(b.service))
}

func (e *editor) putNode(n ax.Node) {
	n.Addr = plain(n.Addr)
	e.removeNode(n.Name)
	node := &n
	e.nodes.set(hashString(string(n.Name)), n.Name, node)
	e.address(n.Addr, func(entry *address) { entry.nodes = append(slices.Clip(entry.nodes), node) })
}

func (e *editor) removeNode(name ax.NodeName) {
	h := hashString(string(name))
	old, ok := e.s.nodes.get(h, name)
	if !ok {
		return
	}
	e.nodes.delete(h, name)
	e.address(old.Addr, func(entry *address) {
		entry.nodes = slices.DeleteFunc(slices.Clone(entry.nodes), func(n *ax.Node) bool { return n.Name == name })
	})
}

func applyPolicies(old *policySet, d Delta) *policySet {
	if len(d.Policies)+len(d.RemovedPolicies) == 0 {
		return old
	}
	byName := make(map[string]*policy, len(old.all())+len(d.Policies))
	for _, p := range old.all() {
		byName[p.Name] = p
	}
	for _, name := range d.RemovedPolicies {
		delete(byName, name)
	}
	for _, p := range d.Policies {
		byName[p.Name] = &policy{Policy: p, everywhere: p.Everywhere()}
	}
	return newPolicySet(slices.Collect(maps.Values(byName)))
}

// canonical returns a service whose endpoints are sorted by id, without nil and duplicates, and whose weights are one
// for each; the input itself if it is so already.
func canonical(in Service) Service {
	if len(in.Weights) != len(in.Endpoints) {
		in.Weights = nil
	}
	sorted := true
	for i, e := range in.Endpoints {
		if e == nil || (i > 0 && in.Endpoints[i-1].ID >= e.ID) {
			sorted = false
			break
		}
	}
	if sorted {
		return in
	}
	type weighed struct {
		endpoint *ax.Endpoint
		weight   uint16
	}
	all := make([]weighed, 0, len(in.Endpoints))
	for i, e := range in.Endpoints {
		switch {
		case e == nil:
		case in.Weights == nil:
			all = append(all, weighed{e, 1})
		default:
			all = append(all, weighed{e, in.Weights[i]})
		}
	}
	slices.SortStableFunc(all, func(a, b weighed) int { return cmp.Compare(a.endpoint.ID, b.endpoint.ID) })
	all = slices.CompactFunc(all, func(a, b weighed) bool { return a.endpoint.ID == b.endpoint.ID })
	weights := in.Weights != nil
	in.Endpoints, in.Weights = make([]*ax.Endpoint, len(all)), nil
	if weights {
		in.Weights = make([]uint16, len(all))
	}
	for i, w := range all {
		in.Endpoints[i] = w.endpoint
		if weights {
			in.Weights[i] = w.weight
		}
	}
	return in
}
