package socktab

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"appswitch.io/internal/ax"
)

// RecordSize is the length of a journalled socket.
const RecordSize = 176

// A record is: cookie, SO_SNDTIMEO, scope (dev, ino), backlog, application, then single bytes, then addresses.
const (
	flagV6Only = 1 << iota
	flagReuseAddr
	flagReusePort
	flagPooled
	flagAdmitted
	flagBound // the scope is set
	flagPublished
	flagForeign
)

func (s *Socket) appendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, s.Cookie)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.SendTimeo))
	var scope ScopeID
	if s.scope != nil {
		scope = s.scope.id
	}
	b = binary.LittleEndian.AppendUint64(b, scope.Dev)
	b = binary.LittleEndian.AppendUint64(b, scope.Ino)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.Backlog))
	id, _ := strconv.ParseUint(string(s.App), 16, 32)
	b = binary.LittleEndian.AppendUint32(b, uint32(id))
	b = append(b, byte(s.Domain), byte(s.Proto), byte(s.State), s.flags())
	for _, a := range []netip.AddrPort{s.Local, s.Peer, s.Host, s.HostPeer, s.Service, s.Bound} {
		b = appendAddrPort(b, a)
	}
	return b
}

func (s *Socket) flags() byte {
	return bit(s.V6Only, flagV6Only) | bit(s.Reuse.Addr, flagReuseAddr) | bit(s.Reuse.Port, flagReusePort) |
		bit(s.Pooled, flagPooled) | bit(s.admitted, flagAdmitted) | bit(s.scope != nil, flagBound) | bit(s.Published, flagPublished) | bit(s.Foreign, flagForeign)
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

const recordLength = 4*8 + 2*4 + 4 + 6*addrLength

var errRecord = errors.New("socket record is not one")

func decode(b []byte) (s Socket, scope ScopeID, bound bool, err error) {
	if len(b) < recordLength {
		return s, scope, false, errRecord
	}
	le := binary.LittleEndian
	s = Socket{
		Cookie: le.Uint64(b), SendTimeo: time.Duration(le.Uint64(b[8:])),
		Backlog: int(int32(le.Uint32(b[32:]))), App: ax.AppID(appID(le.Uint32(b[36:]))),
		Domain: int(b[40]), Proto: ax.Protocol(b[41]), State: State(b[42]), slot: noSlot,
	}
	scope = ScopeID{Dev: le.Uint64(b[16:]), Ino: le.Uint64(b[24:])}
	f := b[43]
	s.V6Only, s.Reuse = f&flagV6Only != 0, Reuse{Addr: f&flagReuseAddr != 0, Port: f&flagReusePort != 0}
	s.Pooled, s.admitted, bound, s.Published = f&flagPooled != 0, f&flagAdmitted != 0, f&flagBound != 0, f&flagPublished != 0
	s.Foreign = f&flagForeign != 0
	for i, a := range []*netip.AddrPort{&s.Local, &s.Peer, &s.Host, &s.HostPeer, &s.Service, &s.Bound} {
		*a = addrPort(b[44+i*addrLength:])
	}
	if (s.Domain != 2 && s.Domain != 10) || (s.Proto != ax.TCP && s.Proto != ax.UDP) || s.State > Accepted || s.Cookie == 0 {
		return s, scope, false, errRecord
	}
	return s, scope, bound, nil
}

func appID(n uint32) string {
	const digits = "0123456789abcdef"
	var b [8]byte
	for i := range b {
		b[i] = digits[n>>(28-4*i)&15]
	}
	return string(b[:])
}

const addrLength = 1 + 16 + 2

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	var family byte
	var ip [16]byte
	if a.IsValid() {
		family, ip = 6, a.Addr().As16()
		if a.Addr().Is4() {
			family = 4
		}
	}
	b = append(append(b, family), ip[:]...)
	return binary.LittleEndian.AppendUint16(b, a.Port())
}

func addrPort(b []byte) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(b[1:17]))
	switch b[0] {
	case 4:
		return netip.AddrPortFrom(ip.Unmap(), binary.LittleEndian.Uint16(b[17:]))
	case 6:
		return netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(b[17:]))
	}
	return netip.AddrPort{}
}

// save journals a socket's entry. A full journal costs nothing but the socket's survival of a restart.
func (t *Table) save(s *Socket) {
	if t.journal == nil {
		return
	}
	if s.slot == noSlot {
		slot, err := t.journal.Alloc()
		if err != nil {
			t.log.Warn("socket is not journalled: it won't survive a restart of the agent", "cookie", s.Cookie, "error", err)
			return
		}
		s.slot = slot
	}
	t.journal.Put(s.slot, s.appendTo(t.record[:0]))
}

// Gone reports whether a socket is not there any more, by what the kernel lists: sockets that have a port. Of one without,
// about to be bound or connected perhaps, it can't be said.
func (s *Socket) Gone(alive func(cookie uint64) bool) bool {
	return (s.Host.Port() != 0 || s.State == Accepted) && !alive(s.Cookie)
}

// Restore enters a journalled socket. Alive tells whether a socket of that cookie still exists; one that doesn't is
// dropped, or, if a server may still ask about it, kept as a ghost.
func (t *Table) Restore(slot int, record []byte, alive func(cookie uint64) bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, scope, bound, err := decode(record)
	if err != nil {
		t.log.Warn("journalled socket is dropped", "slot", slot, "error", err)
		t.journal.Free(slot)
		return
	}
	s.slot = slot
	t.grace = now.Add(RestartGrace)
	if s.Gone(alive) {
		if s.Outgoing() && !s.admitted {
			s.ghost = now.Add(GhostTime)
			t.flows[tuple{s.Host, s.HostPeer}] = &s
			t.addGhost(&s)
			return
		}
		t.journal.Free(slot)
		return
	}
	t.insert(&s)
	if bound {
		t.enter(t.scope(scope), &s)
	}
}
