package route

import (
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// Snapshot is the routes of a cluster at one revision of the service table. It is immutable and safe for any number
// of readers without locks.
type Snapshot struct {
	revision ax.Revision
	services cowMap[ServiceKey, *service]
	hosts    cowMap[hostKey, *host]      // the endpoints of services, by real address
	addrs    cowMap[netip.Addr, address] // what is known of an address as a whole
	nodes    cowMap[ax.NodeName, *ax.Node]
	policies *policySet // nil: none
	suspects map[ax.NodeName]struct{}
}

type service struct {
	Service
	group
	weights []uint32    // of endpoints, in lowest terms; nil: all the same
	maglev  maglevTable // with that balancer
}

func newService(in Service) *service {
	svc := &service{Service: in, group: newGroup(in.Endpoints), weights: lowestTerms(in.Weights)}
	if in.Balancer == ax.Maglev {
		svc.maglev = newMaglev(in.Endpoints, svc.weights)
	}
	return svc
}

// hostKey is a real address on a node.
type hostKey struct {
	proto ax.Protocol
	addr  netip.AddrPort
}

// host is the endpoints that are reached at one real address. References keep it independent of the order of deltas:
// an endpoint stays as long as one service has it.
type host struct {
	refs []hostRef // sorted by endpoint id, then service
	group
}

type hostRef struct {
	endpoint *ax.Endpoint
	service  ServiceKey
}

// address is all that rules about whole addresses need, so that an external destination costs one lookup.
type address struct {
	claimed  bool
	services int32
	hosts    int32
	nodes    []*ax.Node // nodes that have this address
}

func (a *address) zero() bool {
	return !a.claimed && a.services == 0 && a.hosts == 0 && len(a.nodes) == 0
}

// virtual reports whether the address never leaves the cluster. A node's own address is not virtual as a whole:
// its other ports belong to the node.
func (a *address) virtual() bool {
	return (a.claimed || a.services > 0) && len(a.nodes) == 0
}

// reserved reports whether a port belongs to AppSwitch itself.
func (a *address) reserved(port uint16) bool {
	for _, n := range a.nodes {
		if slices.Contains(n.ReservedPorts, port) {
			return true
		}
	}
	return false
}

var empty = &Snapshot{}

// Empty returns the snapshot at revision 0, which knows nothing and lets everything pass.
func Empty() *Snapshot { return empty }

// Revision returns the revision of the service table for which the snapshot stands.
func (s *Snapshot) Revision() ax.Revision { return s.revision }

// Claimed reports whether an address is virtual: claimed, or serving on some port, and no node's own.
func (s *Snapshot) Claimed(a netip.Addr) bool {
	a = plain(a)
	entry, _ := s.addrs.get(hashAddr(a), a)
	return entry.virtual()
}

// HostEndpoint returns the endpoints that are reached at a real address, by id. The slice is shared: don't change it.
func (s *Snapshot) HostEndpoint(proto ax.Protocol, a netip.AddrPort) []*ax.Endpoint {
	a = plainAddrPort(a)
	h, ok := s.hosts.get(hashAddrPort(proto, a), hostKey{proto, a})
	if !ok {
		return nil
	}
	return h.endpoints
}

// Service returns the service of a key.
func (s *Snapshot) Service(key ServiceKey) (Service, bool) {
	key.Addr = plainAddrPort(key.Addr)
	svc, ok := s.services.get(hashAddrPort(key.Proto, key.Addr), key)
	if !ok {
		return Service{}, false
	}
	return svc.Service, true
}

// Node returns the node of a name.
func (s *Snapshot) Node(name ax.NodeName) (ax.Node, bool) {
	n, ok := s.nodes.get(hashString(string(name)), name)
	if !ok {
		return ax.Node{}, false
	}
	return *n, true
}

// Size tells how much a snapshot holds.
type Size struct{ Services, Hosts, Addresses, Nodes, Policies int }

// Size returns the size of the snapshot.
func (s *Snapshot) Size() Size {
	return Size{Services: s.services.len, Hosts: s.hosts.len, Addresses: s.addrs.len, Nodes: s.nodes.len, Policies: len(s.policies.all())}
}

// Suspect returns the snapshot with a new set of nodes that gossip holds for failed: their endpoints are a last
// resort, and those that are stale as well are not used at all. The set survives Apply until it is replaced.
func (s *Snapshot) Suspect(nodes ...ax.NodeName) *Snapshot {
	next := *s
	next.suspects = nil
	if len(nodes) > 0 {
		next.suspects = make(map[ax.NodeName]struct{}, len(nodes))
		for _, n := range nodes {
			next.suspects[n] = struct{}{}
		}
	}
	return &next
}

// standing says how willingly an endpoint is used.
type standing uint8

const (
	gone       standing = iota // not at all
	lastResort                 // when no other is left
	preferred
)

func (s *Snapshot) standing(e *ax.Endpoint) standing {
	if e.External {
		if g, _, d := s.find(ax.Flow{Proto: e.Proto, Dest: e.Host}); g != nil || d.Reason != ax.ReasonExternal {
			return gone // no way around the rules for an address that is not outside
		}
		return preferred
	}
	suspect := false
	if len(s.suspects) > 0 {
		_, suspect = s.suspects[e.Node]
	}
	switch {
	case e.Draining || suspect && e.Stale:
		return gone
	case suspect || e.Stale || e.Health.State == ax.Unhealthy:
		return lastResort
	}
	return preferred
}

// plain returns an address in the one form in which the snapshot knows it: neither IPv4-mapped nor with a zone, so that
// no other way to write an address leads around a rule.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func plainAddrPort(a netip.AddrPort) netip.AddrPort {
	if ip := a.Addr(); ip.Is4In6() || ip.Zone() != "" {
		return netip.AddrPortFrom(plain(ip), a.Port())
	}
	return a
}
