package dnssrv

import (
	"context"
	"math/rand/v2"
	"net/netip"

	"appswitch.io/services/resolver/internal/zone"
	"github.com/miekg/dns"
)

// Names answers for what the service table knows.
type Names struct {
	Origin string            // the domain, as zone.ParseDomain returns it
	Zone   func() *zone.Zone // the present zone; nil before the first
	Soon   func() bool       // without a zone: whether the first is expected at any moment; nil: never
}

// Name implements Handler.
func (*Names) Name() string { return "names" }

// Handle implements Handler.
func (n *Names) Handle(_ context.Context, q *Query) *dns.Msg {
	z := n.Zone()
	if z == nil {
		if !zone.Ours(q.Name, n.Origin) {
			return nil
		}
		// Over UDP, who hears nothing asks again; SERVFAIL would fail the lookup at once.
		if q.Transport == udp && n.Soon != nil && n.Soon() {
			return Silence
		}
		// NXDOMAIN would be a lie that clients remember.
		q.Explain(dns.ExtendedErrorCodeNotReady, "the service table has not arrived yet")
		return q.Reply(dns.RcodeServerFailure)
	}
	a := z.Lookup(q.Name, q.Type, rand.Uint32())
	if a.Kind == zone.Foreign {
		return nil
	}
	m := q.Reply(dns.RcodeSuccess)
	if a.Kind == zone.NXDomain {
		m.Rcode = dns.RcodeNameError
	}
	m.Authoritative = true
	m.Answer, m.Ns, m.Extra = a.Answer, a.Ns, a.Extra
	return m
}

// Gate ends the queries that must not be forwarded.
type Gate struct{}

// Name implements Handler.
func (Gate) Name() string { return "gate" }

// Handle implements Handler.
func (Gate) Handle(_ context.Context, q *Query) *dns.Msg {
	if !q.Recursion {
		q.Explain(dns.ExtendedErrorCodeProhibited, "forwarding is for managed applications")
		return q.Reply(dns.RcodeRefused)
	}
	if q.Type == dns.TypeANY {
		m := q.Reply(dns.RcodeSuccess)
		m.Answer = []dns.RR{zone.Any(q.Name)}
		return m
	}
	return nil
}

// Prefixes returns a function that reports whether an address is in one of the prefixes.
func Prefixes(allowed []netip.Prefix) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		a = a.WithZone("")
		for _, p := range allowed {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
}
