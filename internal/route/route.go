// Package route decides flows. It is pure: an immutable [Snapshot] of the service table, policy and balancing, and
// no I/O, so that the node agent (on every connect), the gateway and Explain share one implementation.
//
// Invariant: a Snapshot never changes once it is made; [Snapshot.Apply] returns another one that shares what did not
// change. Start reading at [Decider.Decide].
package route

import (
	"net/netip"

	"appswitch.io/internal/ax"
)

// ServiceKey names a virtual service address.
type ServiceKey struct {
	Proto ax.Protocol
	Addr  netip.AddrPort
}

// Service is a virtual address and port with its endpoints; immutable once it is part of a Snapshot.
type Service struct {
	Key       ServiceKey
	Balancer  ax.BalancerType
	Endpoints []*ax.Endpoint // sorted by id
}

// Delta takes a Snapshot from one revision to another.
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
