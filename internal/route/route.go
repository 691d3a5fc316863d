// Package route decides flows. It is pure: an immutable [Snapshot] of the service table, policy and balancing, and
// no I/O, so that the node agent (on every connect), the gateway and Explain share one implementation.
//
// Invariant: a Snapshot never changes once it is made; [Snapshot.Apply] returns another one that shares what did not
// change. Start reading at [Decider.Decide].
package route

import (
	"cmp"
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
)

// ServiceKey names a virtual service address.
type ServiceKey struct {
	Proto ax.Protocol
	Addr  netip.AddrPort
}

// Compare orders keys by address, port and protocol.
func (k ServiceKey) Compare(other ServiceKey) int {
	return cmp.Or(ax.CompareAddrPort(k.Addr, other.Addr), cmp.Compare(k.Proto, other.Proto))
}

// Service is a virtual address and port with its endpoints; immutable once it is part of a Snapshot.
type Service struct {
	Key       ServiceKey
	Balancer  ax.BalancerType
	Endpoints []*ax.Endpoint // sorted by id
	Weights   []uint16       // of Endpoints, in the same order, at least 1; nil: all the same
	Affinity  time.Duration  // for how long after its last connect a client keeps its endpoint; 0: not at all
	Source    netip.Addr     // address from which to connect; invalid: any
}

// Delta takes a Snapshot from one revision to another. A service without endpoints is as good as removed. A delta is
// a set: it names each thing once, but if it names one twice, what is added wins over what is removed.
type Delta struct {
	Revision        ax.Revision
	Full            bool // the delta holds everything: drop what was known
	Upserts         []Service
	Removes         []ServiceKey
	Claims          []netip.Addr
	ReleasedClaims  []netip.Addr
	Nodes           []ax.Node
	RemovedNodes    []ax.NodeName
	Policies        []ax.Policy
	RemovedPolicies []string
}

// Empty reports whether the delta changes nothing but the revision.
func (d Delta) Empty() bool {
	return !d.Full && len(d.Upserts)+len(d.Removes)+len(d.Claims)+len(d.ReleasedClaims)+
		len(d.Nodes)+len(d.RemovedNodes)+len(d.Policies)+len(d.RemovedPolicies) == 0
}
