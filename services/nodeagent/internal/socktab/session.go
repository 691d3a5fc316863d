package socktab

import (
	"net/netip"
	"slices"
	"time"

	"appswitch.io/internal/ax"
)

// Datagrams carry no connection, so who talks to whom is kept as sessions of a socket: under which virtual address it knows
// which real one. They make the datagrams of a conversation reach the same server, name the sender of an answer as it was
// asked, and tell a server who its clients are.

// SessionIdle is for how long a session lasts in which nothing is sent or received: as long as NATs are asked to keep one
// (RFC 4787, REQ-5).
const SessionIdle = 5 * time.Minute

// MaxSessions bounds those of one socket. One beyond it takes the place of another.
const MaxSessions = 4096

// Session is a conversation of a UDP socket.
type Session struct {
	Virtual  netip.AddrPort // of the other end, as the application knows it
	Real     netip.AddrPort
	Asked    netip.Addr  // virtual address of this end, as the other one knows it; invalid if it has not begun
	Managed  bool        // the other end is a socket under AppSwitch
	Revision ax.Revision // of the routes by which that was decided

	used time.Time
}

// sessions are those of one socket, each in both maps.
type sessions struct {
	virtual map[netip.AddrPort]*Session
	real    map[netip.AddrPort]*Session
}

// with returns the session with a real address, or nil.
func (s *sessions) with(real netip.AddrPort) *Session {
	if s == nil {
		return nil
	}
	return s.real[real]
}

// to returns a session with a socket, or nil.
func (s *sessions) to(other *Socket) *Session {
	if s == nil || !other.Host.Addr().IsUnspecified() {
		return s.with(other.Host)
	}
	for real, v := range s.real { // a client that has not bound itself: any address of the node is its own
		if v.Managed && real.Port() == other.Host.Port() {
			return v
		}
	}
	return nil
}

// converse enters a session of a socket; the caller holds mu.
func (t *Table) converse(of *Socket, v Session, now time.Time) {
	if of.sessions == nil {
		of.sessions = &sessions{map[netip.AddrPort]*Session{}, map[netip.AddrPort]*Session{}}
	}
	t.forgotten += of.sessions.put(v, now)
}

func (s *sessions) put(v Session, now time.Time) (forgotten uint64) {
	s.drop(s.virtual[v.Virtual])
	if len(s.virtual) >= MaxSessions {
		forgotten = s.makeRoom(now)
	}
	v.used = now
	s.virtual[v.Virtual] = &v
	s.real[v.Real] = &v // of two names for one address the answers come from the one used last
	return forgotten
}

// makeRoom forgets what is idle, or any other.
func (s *sessions) makeRoom(now time.Time) uint64 {
	var any *Session
	for _, v := range s.virtual {
		if any = v; v.idle(now) {
			s.drop(v)
		}
	}
	if len(s.virtual) < MaxSessions {
		return 0
	}
	s.drop(any)
	return 1
}

func (s *sessions) drop(v *Session) {
	if v == nil {
		return
	}
	delete(s.virtual, v.Virtual)
	if s.real[v.Real] == v {
		delete(s.real, v.Real)
	}
}

func (v *Session) idle(now time.Time) bool { return now.Sub(v.used) > SessionIdle }

// Session returns the session of a socket with a virtual address.
func (t *Table) Session(cookie uint64, virtual netip.AddrPort, now time.Time) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[cookie]
	if s == nil || s.sessions == nil {
		return Session{}, false
	}
	v := s.sessions.virtual[virtual]
	if v == nil || v.idle(now) {
		return Session{}, false
	}
	v.used = now
	return *v, true
}

// Converse enters a session of a socket, or replaces the one with the same virtual address.
func (t *Table) Converse(cookie uint64, v Session, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sockets[cookie]; s != nil {
		t.converse(s, v, now)
	}
}

// Forgotten counts the sessions whose place another one has taken.
func (t *Table) Forgotten() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.forgotten
}

// Sender tells from whom a datagram comes that a socket has received from a real address; here says that this is one of the
// node. Not known: no socket under AppSwitch has announced to send there, by connecting or by a session of its own, and
// neither has the receiver.
func (t *Table) Sender(cookie uint64, from netip.AddrPort, here bool, now time.Time) (sender Session, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sender = Session{Virtual: from, Real: from}
	s := t.sockets[cookie]
	if s == nil {
		return sender, false
	}
	if v := s.sessions.with(from); v != nil && !v.idle(now) {
		v.used = now
		return *v, true
	}
	if !here {
		return sender, false
	}
	for _, c := range t.udp[from.Port()] {
		if c == s || !holds(c, from.Addr()) {
			continue
		}
		var virtual netip.AddrPort
		virtual, sender.Asked, known = c.seenBy(s)
		if !known && now.Before(t.grace) {
			known = true // an earlier agent may have known it
		}
		if virtual.Addr().Is6() && (s.Domain == domainInet || sender.Asked.Is4()) {
			virtual = netip.AddrPortFrom(from.Addr(), virtual.Port()) // its IPv4 address is the node's
		}
		if virtual.IsValid() {
			sender.Virtual = virtual
		}
		if sender.Managed = true; known {
			t.converse(s, sender, now)
		}
		return sender, known
	}
	return sender, false
}

// holds reports whether a UDP socket may have sent from a real address of the node.
func holds(s *Socket, from netip.Addr) bool {
	return s.Host.Addr() == from || s.Host.Addr().IsUnspecified()
}

// seenBy returns the address of client c as server s is to see it, that of s as c knows it, and whether c has announced to
// talk to s.
func (c *Socket) seenBy(s *Socket) (virtual netip.AddrPort, asked netip.Addr, known bool) {
	if c.HostPeer == s.Host && s.Host.IsValid() {
		return c.Local, c.Peer.Addr(), true
	}
	v := c.sessions.to(s)
	if v == nil {
		return c.Service, netip.Addr{}, false
	}
	if v.Virtual.Addr().IsLoopback() {
		return netip.AddrPortFrom(v.Virtual.Addr(), c.Service.Port()), v.Virtual.Addr(), true
	}
	return c.Service, v.Virtual.Addr(), true
}

// Correspondent finds the UDP socket that an application may answer at a virtual address: one that has announced to talk to
// any socket of the application, or one of its own on loopback.
func (t *Table) Correspondent(app ax.AppID, virtual netip.AddrPort, now time.Time) (Socket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.udp[virtual.Port()] { // the port of one that no service stands for is the real one
		if virtual.Addr().IsLoopback() && c.App == app { // a port that connecting, or sending, has given it
			return *c, true
		}
		if c.Service != virtual {
			continue
		}
		if t.corresponds(c, app) || now.Before(t.grace.Add(SessionIdle)) && !t.grace.IsZero() {
			return *c, true
		}
	}
	return Socket{}, false
}

func (t *Table) corresponds(c *Socket, app ax.AppID) bool {
	belongs := func(host netip.AddrPort) bool {
		return slices.ContainsFunc(t.udp[host.Port()], func(s *Socket) bool { return s.App == app && holds(s, host.Addr()) })
	}
	if c.HostPeer.IsValid() && belongs(c.HostPeer) {
		return true
	}
	if c.sessions == nil {
		return false
	}
	for real, v := range c.sessions.real {
		if v.Managed && belongs(real) {
			return true
		}
	}
	return false
}

// Serving returns the UDP socket of the node for which an endpoint with a virtual address is published.
func (t *Table) Serving(service netip.AddrPort) (Socket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, scope := range t.scopes {
		for _, s := range scope.binds[bindKey{ax.UDP, service.Port()}] {
			if s.Published && s.Service == service && s.Host.IsValid() {
				return *s, true
			}
		}
	}
	return Socket{}, false
}

// index enters a UDP socket under its real port.
func (t *Table) index(s *Socket) {
	if s.Proto == ax.UDP && s.Host.Port() != 0 {
		t.udp[s.Host.Port()] = append(t.udp[s.Host.Port()], s)
	}
}

func (t *Table) unindex(s *Socket) {
	if s.Proto != ax.UDP || s.Host.Port() == 0 {
		return
	}
	port := s.Host.Port()
	rest := slices.DeleteFunc(t.udp[port], func(o *Socket) bool { return o == s })
	if len(rest) == 0 {
		delete(t.udp, port)
		return
	}
	t.udp[port] = rest
}
