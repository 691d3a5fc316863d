// Package socktab is the node agent's table of sockets: which application made a socket, and which virtual addresses
// it shows. It is the one truth about them in memory; what a restart needs of it is kept in a journal.
//
// Invariant: sockets are known by cookie, never by process and descriptor, because descriptors migrate between
// processes. One lock guards everything and is never held across a wait, nor a system call but the journal's when
// its file grows. Start reading at [Table].
package socktab

import (
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
)

// State is how far a socket has come.
type State uint8

// The states of a socket.
const (
	Fresh      State = iota // just made
	Bound                   // has a local address
	Listening               // listen(2) succeeded
	Connecting              // connect(2) started
	Connected               // connect(2) went through
	Accepted                // came out of accept(2)
)

// Socket is what the agent knows about one socket. The zero AddrPort stands for "none".
type Socket struct {
	Cookie uint64
	App    ax.AppID
	Domain int // AF_INET or AF_INET6
	Proto  ax.Protocol
	State  State

	Local netip.AddrPort // virtual, as getsockname shows it; a wildcard if that was bound
	Peer  netip.AddrPort // virtual, as getpeername shows it

	Host     netip.AddrPort // real local address, once bound
	HostPeer netip.AddrPort // real peer of an outgoing connection to an endpoint: the server's agent asks for it

	Bound   netip.AddrPort // virtual address that bind(2) set, if it did
	Service netip.AddrPort // virtual address of the endpoint that stands for it in the service table, if Published; over UDP also at which others see a client

	Reuse     Reuse
	V6Only    bool // the application has set IPV6_V6ONLY; the real socket has it only if Host is an IPv6 address
	Foreign   bool // made outside AppSwitch: its addresses are real
	Pooled    bool // Host's port came from the port pool
	Published bool
	Backlog   int
	SendTimeo time.Duration // the application's SO_SNDTIMEO while the agent borrows it, else NoTimeo

	slot     int       // in the journal; noSlot if it is not journalled
	admitted bool      // the server's accept has asked for this outgoing connection
	ghost    time.Time // when a closed outgoing connection is forgotten; zero while it is open
	scope    *Scope    // loopback that it belongs to, while bound
	sessions *sessions // of a UDP socket; the table's lock guards them
}

// Reuse holds the options that let several sockets share an address.
type Reuse struct{ Addr, Port bool }

const (
	noSlot  = -1
	NoTimeo = time.Duration(-1) // SendTimeo: nothing is borrowed
)

// Disconnect takes a socket back to what it was before connect(2).
func (s *Socket) Disconnect() {
	s.Peer, s.HostPeer, s.Local, s.State = netip.AddrPort{}, netip.AddrPort{}, s.Bound, Fresh
	if s.Bound.IsValid() {
		s.State = Bound
	}
}

// Serves reports whether an endpoint in the service table stands for the socket.
func (s *Socket) Serves() bool { return s.Published && (s.State == Listening || s.Proto == ax.UDP) }

// Outgoing reports whether the socket connects to an endpoint under AppSwitch, whose agent will ask who it is.
func (s *Socket) Outgoing() bool {
	return s.Proto == ax.TCP && s.HostPeer.IsValid() && s.Host.IsValid()
}

// overlaps reports whether two bindings claim a common local address (inet_rcv_saddr_equal in the kernel): equal
// addresses, or a wildcard of a family that the other one serves.
func overlaps(a, b *Socket) bool {
	aa, bb := a.Bound.Addr(), b.Bound.Addr()
	if !a.Takes(bb) && !b.Takes(aa) {
		return false
	}
	return aa.IsUnspecified() || bb.IsUnspecified() || aa == bb
}

// Takes reports whether the socket can hold or receive an address, going by the family alone: IPv4 on AF_INET and on
// dual-stack AF_INET6.
func (s *Socket) Takes(a netip.Addr) bool {
	v4 := a.Unmap().Is4()
	switch {
	case s.Bound.Addr().Is4():
		return v4
	case s.V6Only:
		return !v4
	}
	return true
}
