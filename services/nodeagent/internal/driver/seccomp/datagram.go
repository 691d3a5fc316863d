package seccomp

import (
	"net/netip"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// maxRejected bounds the datagrams from strangers that one receive may skip.
const maxRejected = 1024

// resolveDatagram is resolve for a UDP socket: what has been decided for a conversation holds while it lasts, so that its
// datagrams reach the same server, and a server may answer the clients that have sent to it.
func (t *task) resolveDatagram(s socktab.Socket, dest netip.AddrPort) (target, bool) {
	if !deliverable(dest.Addr()) {
		return target{verdict: ax.Deny, reason: ax.ReasonNoEndpoint, errno: syscall.ENETUNREACH}, true
	}
	table, snapshot := t.d.deps.Table, t.d.deps.Routes.Snapshot()
	session, known := table.Session(s.Cookie, dest, now())
	if known && (session.Revision == 0 || snapshot != nil && session.Revision == snapshot.Revision()) {
		return target{addr: session.Real, managed: session.Managed, verdict: ax.Allow}, true
	}
	out, ok := t.resolve(s, dest, nil)
	if !ok {
		return out, false
	}
	out.managed = out.verdict == ax.Allow
	switch {
	case known && out.endpoint != nil && out.addr != session.Real && t.stillServes(session.Real):
		out.addr = session.Real
	case out.reason == ax.ReasonNoEndpoint && snapshot != nil && t.justBound(&out, dest, snapshot):
	case out.verdict == ax.Deny && out.policy == "", out.verdict == ax.Passthrough && dest.Addr() == t.d.cfg.NodeAddr: // where applications without an address are
		if c, ok := table.Correspondent(t.app.ID, dest, now()); ok {
			return target{addr: t.senderOf(c), managed: true, verdict: ax.Allow}, true
		}
	}
	return out, true
}

// justBound decides about a service of the node that the routes don't have yet: over UDP the port is often agreed upon over
// another connection, microseconds before the first datagram comes.
func (t *task) justBound(out *target, dest netip.AddrPort, snapshot *route.Snapshot) bool {
	s, ok := t.d.deps.Table.Serving(dest)
	if !ok {
		return false
	}
	app, ok := t.d.appOf(s.App)
	if !ok {
		return false
	}
	endpoint := Endpoint(app, s)
	soon := snapshot.Apply(route.Delta{Revision: snapshot.Revision(), Upserts: []route.Service{{
		Key: route.ServiceKey{Proto: ax.UDP, Addr: dest}, Endpoints: []*ax.Endpoint{&endpoint},
	}}})
	d := t.d.deps.Decider.Decide(soon, ax.Flow{App: t.app.ID, Client: t.app.Addr, Labels: t.app.Labels, Proto: ax.UDP, Dest: dest}, nil)
	*out = target{verdict: d.Verdict, reason: d.Reason, policy: d.Policy, audit: d.Audit, errno: syscall.ECONNREFUSED}
	if d.Verdict == ax.Allow {
		out.addr, out.endpoint, out.managed, out.errno = d.Endpoint.Host, d.Endpoint, true, 0
	}
	return true
}

// deliverable reports whether a datagram may be meant for one receiver. A network without multicast, which is what an
// application's is, has no route to the others.
func deliverable(ip netip.Addr) bool {
	return !ip.IsMulticast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// stillServes reports whether the application may reach an endpoint, given by its real address, by the routes of now.
func (t *task) stillServes(host netip.AddrPort) bool {
	d := t.d.deps.Decider.Decide(t.d.deps.Routes.Snapshot(), ax.Flow{App: t.app.ID, Client: t.app.Addr, Labels: t.app.Labels, Proto: ax.UDP, Dest: host}, nil)
	return d.Verdict == ax.Allow
}

// senderOf is the address from which the datagrams of a socket come to others on the node.
func (t *task) senderOf(s socktab.Socket) netip.AddrPort {
	if s.Host.Addr().IsUnspecified() {
		return netip.AddrPortFrom(t.d.cfg.NodeAddr, s.Host.Port())
	}
	return s.Host
}

// announce makes known that a socket is about to send to an address, before it does: the receiver's agent will ask.
func (t *task) announce(fd int, s socktab.Socket, dest netip.AddrPort, to *target) syscall.Errno {
	if !to.managed && (to.verdict != ax.Passthrough || to.reason == ax.ReasonDNS || !serves(s)) {
		return 0
	}
	if !s.Host.IsValid() {
		if errno := t.autobind(fd, s); errno != 0 {
			return errno
		}
	}
	t.converse(s, dest, to)
	return 0
}

// converse enters where the datagrams of a socket to an address go.
func (t *task) converse(s socktab.Socket, dest netip.AddrPort, to *target) {
	session := socktab.Session{Virtual: dest, Real: to.addr, Managed: to.managed}
	if old, ok := t.d.deps.Table.Session(s.Cookie, dest, now()); ok && old.Real == session.Real && old.Revision == 0 {
		return // it has begun
	}
	if snapshot := t.d.deps.Routes.Snapshot(); snapshot != nil {
		session.Revision = snapshot.Revision()
	}
	t.d.deps.Table.Converse(s.Cookie, session, now())
}

// autobind gives a socket that has no port one before it sends, which the kernel would do while it sends.
func (t *task) autobind(fd int, s socktab.Socket) syscall.Errno {
	host := realName(fd, sys.Getsockname)
	if host.Port() == 0 {
		if errno := bindSocket(fd, s.Domain, wildcardOf(s.Domain, 0)); errno != 0 {
			return errno
		}
		host = realName(fd, sys.Getsockname)
	}
	t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) {
		s.Host, s.Local = host, wildcardOf(s.Domain, host.Port())
		s.Service = netip.AddrPortFrom(t.datagramAddr(s), host.Port())
		if s.State == socktab.Fresh {
			s.State = socktab.Bound
		}
	})
	return 0
}

// serves reports whether a UDP socket is a server's: it was bound to a port of the program's choice.
func serves(s socktab.Socket) bool {
	return s.Proto == ax.UDP && !s.Foreign && (s.Pooled || s.Published)
}

// sender tells from whom a datagram comes, as the application is to see it, and whether it may see it at all: a server's
// real address is no open door, so what comes to it must have been announced. A client may hear from anybody, as natively.
// Asked is the socket's own address as the sender knows it, if that is known.
func (t *task) sender(s socktab.Socket, from netip.AddrPort, data []byte) (virtual netip.AddrPort, asked netip.Addr, ok bool) {
	switch {
	case !from.IsValid() || s.Foreign:
		return from, asked, true
	case s.HostPeer.IsValid() && from == s.HostPeer:
		return s.Peer, asked, true
	case from == t.names.addr:
		nameserver, ok := t.lookups.answered(s.Cookie, data)
		if !ok { // asked through an agent that died
			nameserver = t.nameserver()
		}
		return nameserver, asked, true
	}
	here := from.Addr() == t.d.cfg.NodeAddr || from.Addr().IsLoopback()
	session, known := t.d.deps.Table.Sender(s.Cookie, from, here, now())
	if !known && serves(s) {
		t.d.deps.Metrics.DatagramsRejected.Inc()
		return from, asked, false
	}
	return session.Virtual, session.Asked, true
}

// publishDatagram makes the service of a UDP socket known that was bound to a port of the program's choice. It begins with
// bind: there is no listen.
func (t *task) publishDatagram(cookie uint64) {
	var endpoint ax.Endpoint
	t.d.deps.Table.Update(cookie, func(s *socktab.Socket) {
		s.Service = netip.AddrPortFrom(t.datagramAddr(s), s.Local.Port())
		if s.Foreign || !s.Pooled || !serviceAddr(t.app.Addr, t.d.cfg.NodeAddr, s).IsValid() || s.Peer.IsValid() {
			return
		}
		s.Published = true
		endpoint = Endpoint(t.app, *s)
	})
	if endpoint.ID != "" {
		t.d.deps.Publisher.PutEndpoint(endpoint)
	}
}

// withdrawDatagram takes a service back: its socket is connected, and hears one peer alone.
func (t *task) withdrawDatagram(s socktab.Socket) {
	if !s.Published {
		return
	}
	t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) { s.Published = false })
	if !t.d.deps.Table.Listens(s) {
		t.d.deps.Publisher.DropEndpoint(ax.MakeEndpointID(s.App, s.Proto, s.Service, s.Host.Port()))
	}
}

// disconnected enters what is left of a UDP socket's addresses after AF_UNSPEC: the kernel takes a port back that the
// program has not chosen.
func (t *task) disconnected(fd int, s socktab.Socket) {
	if s.Proto != ax.UDP {
		return
	}
	host := realName(fd, sys.Getsockname)
	t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) {
		if host.Port() == 0 {
			s.Host, s.Local = netip.AddrPort{}, netip.AddrPort{}
			if s.Bound.IsValid() {
				s.Local = netip.AddrPortFrom(s.Bound.Addr(), 0)
			}
		} else {
			s.Host = host
		}
	})
	if host.Port() != 0 && s.Bound.IsValid() {
		t.publishDatagram(s.Cookie)
	}
}

// datagramName is what getsockname shows of a UDP socket to which the kernel has given a port while it sent.
func datagramName(fd int, s socktab.Socket) netip.AddrPort {
	if s.Proto == ax.UDP {
		return wildcardOf(s.Domain, realName(fd, sys.Getsockname).Port())
	}
	return wildcardOf(s.Domain, 0)
}

// associate connects a UDP socket, which only sets its peer. What is refused is associated with a port where nobody
// listens: as natively, connect(2) succeeds and sending gets ECONNREFUSED.
func (op *connect) associate() syscall.Errno {
	var buf [procmem.SizeInet6]byte
	if op.target.errno != 0 {
		op.target.addr = netip.AddrPortFrom(loopback4, unusedPort)
		if op.s.Domain == unix.AF_INET6 && !op.dest.Addr().Is4() {
			op.target.addr = netip.AddrPortFrom(netip.IPv6Loopback(), unusedPort)
		}
	}
	op.t.openTo4(op.fd, &op.s, op.target.addr.Addr())
	if errno := sys.Connect(op.fd, procmem.AppendSockaddr(buf[:0], op.s.Domain, op.target.addr)); errno != 0 {
		return errno
	}
	host := realName(op.fd, sys.Getsockname)
	op.t.d.deps.Table.Update(op.s.Cookie, func(s *socktab.Socket) {
		s.Peer, s.HostPeer = op.dest, op.target.addr
		op.record(s, host, 0)
		if !s.Published {
			s.Service = netip.AddrPortFrom(localAddr(op.t.app.Addr, op.t.d.cfg.NodeAddr, s.Peer.Addr(), s.Host.Addr()), s.Local.Port())
		}
	})
	op.t.withdrawDatagram(op.s)
	if op.target.managed {
		op.t.converse(op.s, op.dest, &op.target) // who connects again, gets the same server
	}
	op.count()
	return 0
}
