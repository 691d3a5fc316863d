package ax

import (
	"net/netip"
	"strconv"
)

// Flow is one attempt of an application to reach a destination.
type Flow struct {
	App    AppID
	Client netip.Addr // virtual address of the application; its node's, or invalid, if it has none of its own
	Labels Labels
	Proto  Protocol
	Dest   netip.AddrPort // as the application gave it, unmapped
}

// Verdict is the outcome of a decision.
type Verdict uint8

// The verdicts.
const (
	Allow       Verdict = 1 // connect to the chosen endpoint
	Deny        Verdict = 2 // refuse
	Passthrough Verdict = 3 // not ours: connect to the destination itself, from the host
)

// String returns "allow", "deny" or "passthrough".
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case Passthrough:
		return "passthrough"
	}
	return "verdict(" + strconv.Itoa(int(v)) + ")"
}

// Reason says why a decision is as it is. The set is closed: metrics use it as a label.
type Reason string

// The reasons.
const (
	ReasonLabels       Reason = "shared-label"     // client and server share a label
	ReasonPolicyAllow  Reason = "policy-allow"     // a policy admits it
	ReasonPolicyDeny   Reason = "policy-deny"      // a policy refuses it
	ReasonNoLabel      Reason = "no-shared-label"  // endpoints exist, none may be reached
	ReasonNoEndpoint   Reason = "no-endpoint"      // the address is virtual and nothing serves the port
	ReasonTried        Reason = "endpoints-failed" // every endpoint that may be reached has refused
	ReasonStale        Reason = "stale"            // its node seems to be gone, and others are preferred
	ReasonUnhealthy    Reason = "unhealthy"        // its checks fail, and others are preferred
	ReasonEjected      Reason = "ejected"          // connects from this node to it have failed, and others are preferred
	ReasonDraining     Reason = "draining"         // it is being drained: no new connections
	ReasonReservedPort Reason = "reserved-port"    // one of AppSwitch's own ports
	ReasonExternal     Reason = "external"         // not a virtual address; allowed: a backend outside AppSwitch
	ReasonLoopback     Reason = "loopback"         // the application's own loopback
	ReasonDNS          Reason = "dns"              // a name lookup, answered by the resolver
	ReasonNoSnapshot   Reason = "no-snapshot"      // no routes have arrived yet
)

// Decision is what happens to a flow.
type Decision struct {
	Verdict  Verdict
	Reason   Reason
	Policy   string     // name of the policy that decided, if one did
	Audit    string     // name of the policy in audit mode that would refuse what is carried out, if one would
	Endpoint *Endpoint  // with Allow; shared and immutable
	Source   netip.Addr // real address to connect from, with Allow; invalid: whatever the host's routes say
	Revision Revision   // of the snapshot that decided
}

// Why returns the reason, with the name of the policy that decided, if one did: "policy-deny: no-db".
func (d Decision) Why() string { return d.Reason.By(d.Policy) }

// By returns the reason with the name of the policy that gave it; the reason alone if there is none.
func (r Reason) By(policy string) string {
	if policy == "" {
		return string(r)
	}
	return string(r) + ": " + policy
}

// ErrnoName returns the name of the errno with which an application's connect fails; empty if it is carried out. It is
// the one place where that is chosen.
func (d Decision) ErrnoName() string {
	switch {
	case d.Verdict != Deny:
		return ""
	case d.Reason == ReasonNoSnapshot:
		return "ENETDOWN"
	}
	return "ECONNREFUSED"
}
