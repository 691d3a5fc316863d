package socktab

import (
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
)

// ScopeID identifies a loopback: the network namespace of the programs that share it.
type ScopeID struct{ Dev, Ino uint64 }

// Scope is what is bound in one network namespace: the private loopback of the applications there, and what keeps an
// application from binding the same address twice. Table's lock guards it.
type Scope struct {
	id    ScopeID
	binds map[bindKey][]*Socket
}

type bindKey struct {
	proto ax.Protocol
	port  uint16
}

// Bind enters a binding: the socket's Local must be set. It fails if another socket of the same application holds an
// overlapping address and the two don't both allow it (SO_REUSEPORT, or SO_REUSEADDR while neither listens: socket(7),
// inet_csk_bind_conflict in the kernel), and then returns the one that is in the way: it may have been closed just now,
// which the kernel tells us a little later. Two applications never conflict: they are balanced.
func (t *Table) Bind(id ScopeID, cookie uint64, local netip.AddrPort, reuse Reuse, v6only bool) (inTheWay Socket, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sockets[cookie]
	if !ok {
		return Socket{}, false
	}
	probe := *s
	probe.Bound, probe.Reuse, probe.V6Only = local, reuse, v6only
	for _, other := range t.scope(id).binds[bindKey{s.Proto, local.Port()}] {
		if other.App == s.App && other != s && overlaps(&probe, other) && !mayShare(&probe, other) {
			return *other, false
		}
	}
	t.unbind(s) // after a restart it may have been entered before; alone in its scope, that is gone now
	s.Local, s.Bound, s.Reuse, s.V6Only, s.State = local, local, reuse, v6only, Bound
	t.enter(t.scope(id), s)
	t.save(s)
	return Socket{}, true
}

func mayShare(a, b *Socket) bool {
	if a.Reuse.Port && b.Reuse.Port {
		return true
	}
	return a.Reuse.Addr && b.Reuse.Addr && a.State != Listening && b.State != Listening
}

// CanListen reports whether a bound socket may start to listen: two that share an address by SO_REUSEADDR alone may not
// both do so. If it may not, the one that listens is returned, as Bind does.
func (t *Table) CanListen(cookie uint64) (inTheWay Socket, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sockets[cookie]
	if !ok || s.scope == nil {
		return Socket{}, true
	}
	for _, other := range s.scope.binds[bindKey{s.Proto, s.Bound.Port()}] {
		if other != s && other.App == s.App && other.State == Listening && overlaps(s, other) && (!s.Reuse.Port || !other.Reuse.Port) {
			return *other, false
		}
	}
	return Socket{}, true
}

// ReusePortHost returns the real address that a group of SO_REUSEPORT sockets already has, for a new member of it. UDP sockets
// form one by SO_REUSEADDR, too.
func (t *Table) ReusePortHost(cookie uint64) (netip.AddrPort, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sockets[cookie]
	if !ok || s.scope == nil || !s.shares() {
		return netip.AddrPort{}, false
	}
	for _, other := range s.scope.binds[bindKey{s.Proto, s.Bound.Port()}] {
		if other != s && other.App == s.App && other.shares() && other.Bound == s.Bound && other.V6Only == s.V6Only && other.Domain == s.Domain && other.Host.IsValid() {
			return other.Host, true
		}
	}
	return netip.AddrPort{}, false
}

func (s *Socket) shares() bool { return s.Reuse.Port || s.Proto == ax.UDP && s.Reuse.Addr }

// Unbind takes a binding back whose real bind failed.
func (t *Table) Unbind(cookie uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.sockets[cookie]; ok {
		t.unbind(s)
		s.Bound = netip.AddrPort{}
		s.Disconnect()
		t.save(s)
	}
}

// Loopback finds what listens (TCP) or is bound (UDP) at a loopback address of a scope. Exact addresses win over
// wildcards. It returns the real address to connect to, for a client socket of the given domain.
func (t *Table) Loopback(id ScopeID, proto ax.Protocol, dest netip.AddrPort, clientDomain int) (host netip.AddrPort, ok bool) {
	return t.serving(id, "", proto, dest, clientDomain)
}

// Own finds what one application itself serves at an address of its own, as Loopback does.
func (t *Table) Own(id ScopeID, app ax.AppID, proto ax.Protocol, dest netip.AddrPort, clientDomain int) (host netip.AddrPort, ok bool) {
	return t.serving(id, app, proto, dest, clientDomain)
}

// serving finds what serves an address in a scope: a socket of app, or of any application if that is empty.
func (t *Table) serving(id ScopeID, app ax.AppID, proto ax.Protocol, dest netip.AddrPort, clientDomain int) (host netip.AddrPort, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	scope := t.scopes[id]
	if scope == nil {
		return netip.AddrPort{}, false
	}
	for _, exact := range []bool{true, false} {
		for _, s := range scope.binds[bindKey{proto, dest.Port()}] {
			if app != "" && s.App != app {
				continue
			}
			if !s.Host.IsValid() || (proto == ax.TCP && s.State != Listening) || !s.Takes(dest.Addr()) {
				continue
			}
			if clientDomain == domainInet && !s.Host.Addr().Is4() {
				continue
			}
			if exact == (s.Bound.Addr() == dest.Addr()) && (exact || s.Bound.Addr().IsUnspecified()) {
				return s.Host, true
			}
		}
	}
	return netip.AddrPort{}, false
}

const domainInet = 2 // AF_INET

func (t *Table) scope(id ScopeID) *Scope {
	s := t.scopes[id]
	if s == nil {
		s = &Scope{id: id, binds: map[bindKey][]*Socket{}}
		t.scopes[id] = s
	}
	return s
}

func (t *Table) enter(scope *Scope, s *Socket) {
	s.scope = scope
	key := bindKey{s.Proto, s.Bound.Port()}
	scope.binds[key] = append(scope.binds[key], s)
}

func (t *Table) unbind(s *Socket) {
	if s.scope == nil {
		return
	}
	key := bindKey{s.Proto, s.Bound.Port()}
	rest := slices.DeleteFunc(s.scope.binds[key], func(o *Socket) bool { return o == s })
	if len(rest) == 0 {
		delete(s.scope.binds, key)
		if len(s.scope.binds) == 0 {
			delete(t.scopes, s.scope.id)
		}
	} else {
		s.scope.binds[key] = rest
	}
	s.scope = nil
}
