package seccomp

import (
	"net/netip"
	"slices"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
	"golang.org/x/sys/unix"
)

const dnsPort = 53

// target is where a flow really goes.
type target struct {
	addr     netip.AddrPort // real
	managed  bool           // an application under AppSwitch listens there: its agent will ask who connects
	endpoint *ax.Endpoint   // if it was chosen from the service table
	source   netip.Addr     // real address to connect from; invalid: any
	verdict  ax.Verdict
	reason   ax.Reason
	policy   string        // that decided, if one did
	audit    string        // policy in audit mode that would refuse what is carried out, if one would
	errno    syscall.Errno // refused: what the application gets
}

func refused(reason ax.Reason) target {
	return target{verdict: ax.Deny, reason: reason, errno: syscall.ECONNREFUSED}
}

// resolve decides a flow. It reports false if that has to wait for the first routing snapshot.
//
// The order is: loopback is the application's own, or the host's for one that lives in the host's network namespace;
// name lookups go to the resolver; everything else is for the service table to say.
func (t *task) resolve(s socktab.Socket, dest netip.AddrPort, tried []ax.EndpointID) (target, bool) {
	if s.Proto == ax.TCP && dest == s.Bound && s.Host.IsValid() {
		return target{addr: s.Host, verdict: ax.Allow, reason: ax.ReasonLoopback}, true // to itself: TCP allows it
	}
	if dest.Addr().IsLoopback() {
		if host, ok := t.d.deps.Table.Loopback(t.app.Scope, s.Proto, dest, s.Domain); ok {
			return target{addr: host, managed: s.Proto == ax.TCP, verdict: ax.Allow, reason: ax.ReasonLoopback}, true
		}
	}
	if t.isLookup(dest) {
		resolver := t.names.addr
		if s.Proto == ax.TCP {
			resolver = t.d.deps.Resolver()
		}
		if !resolver.IsValid() {
			return refused(ax.ReasonNoEndpoint), true
		}
		return target{addr: resolver, verdict: ax.Passthrough, reason: ax.ReasonDNS}, true
	}
	if dest.Addr().IsLoopback() {
		if t.app.HostScope {
			return target{addr: dest, verdict: ax.Passthrough, reason: ax.ReasonLoopback}, true
		}
		return refused(ax.ReasonLoopback), true
	}
	snapshot := t.d.deps.Routes.Snapshot()
	if snapshot == nil {
		return target{verdict: ax.Deny, reason: ax.ReasonNoSnapshot}, false
	}
	d := t.d.deps.Decider.Decide(snapshot, ax.Flow{App: t.app.ID, Client: t.app.Addr, Labels: t.app.Labels, Proto: s.Proto, Dest: dest}, tried)
	if host, ok := t.unheardOf(s, dest, d); ok {
		return target{addr: host, managed: s.Proto == ax.TCP, verdict: ax.Allow, reason: ax.ReasonLoopback}, true
	}
	out := target{verdict: d.Verdict, reason: d.Reason, policy: d.Policy, audit: d.Audit}
	switch d.Verdict {
	case ax.Allow:
		out.addr, out.endpoint, out.source, out.managed = d.Endpoint.Host, d.Endpoint, d.Source, s.Proto == ax.TCP
	case ax.Passthrough:
		out.addr = dest
		if s.Domain == unix.AF_INET && !dest.Addr().Is4() {
			out.errno = syscall.EAFNOSUPPORT
		}
	default:
		out.errno = syscall.ECONNREFUSED
	}
	return out, true
}

// unheardOf finds a service of the application itself, at its own address, that the service table doesn't tell of: it has begun
// to listen just now, and the way through the registry and the router takes a moment, which a program doesn't wait between
// listen and connect; or it is one that is not published. What the table tells of is the table's to balance.
func (t *task) unheardOf(s socktab.Socket, dest netip.AddrPort, d ax.Decision) (host netip.AddrPort, ok bool) {
	if dest.Addr() != t.app.Addr || d.Reason != ax.ReasonNoEndpoint && d.Reason != ax.ReasonExternal {
		return host, false
	}
	return t.d.deps.Table.Own(t.app.Scope, t.app.ID, s.Proto, dest, s.Domain)
}

// isLookup reports whether dest is a nameserver as the application knows it.
func (t *task) isLookup(dest netip.AddrPort) bool {
	return t.app.DNS && dest.Port() == dnsPort && (dest.Addr().IsLoopback() || slices.Contains(t.app.Nameservers, dest.Addr()))
}
