// Package vault takes connections off listening sockets for the agent, in such a way that one which was accepted but has not
// reached its application yet survives the agent: a process that outlives it, the application's holder, has it too.
//
// Two ways lead there. With io_uring the kernel accepts a connection and gives it to a ring of the holder's in one step,
// which not even SIGKILL comes between. Without, the agent sends a copy through a pair of UNIX sockets that the holder has
// both ends of (transit), right after the accept; a kill between the two calls loses the connection.
//
// Invariant: a connection is in the holder's hands from the accept until [Vault.Settle], and not after it. Everything that
// comes back from the holder is hostile input. Start reading at [Vault.Accept].
package vault

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/launch/uring"
	"appswitch.io/services/nodeagent/launch/wire"
	"golang.org/x/sys/unix"
)

// KeptFDs is how many descriptors the holder keeps for the next agent.
const KeptFDs = 2

// maxTransit bounds what is taken up of what a holder has in transit; its socket's buffer holds less.
const maxTransit = 4096

// Conn is an accepted connection. Its descriptor belongs to whoever has the Conn; Settle doesn't close it.
type Conn struct {
	FD   int
	Peer netip.AddrPort // real; not valid if it has gone already

	way    way
	place  uint32 // in the holder's ring
	cookie uint64 // recovered ones
}

// way is how the holder has a connection.
type way uint8

const (
	unprotected way = iota // it hasn't
	inTransit
	inRing
)

// Vault belongs to one application and to one thread.
type Vault struct {
	in, out int         // transit
	ring    *uring.Ring // ours; nil: transit is used
	safe    int         // the holder's
	free    []uint32    // places in the holder's ring

	// What the kernel fills in while our ring accepts: on the heap, where nothing moves.
	peer    [procmem.MaxSockaddr]byte
	peerLen uint32
	ops     [4]uring.Op
	results [4]int32
}

// New takes up the transit that an earlier agent has left, or makes one if kept is nothing or not what it should be. It
// owns kept.
func New(kept []int) (*Vault, error) {
	v := &Vault{in: -1, out: -1, safe: -1}
	if len(kept) == KeptFDs && isTransit(kept[0]) && isTransit(kept[1]) {
		v.in, v.out = kept[0], kept[1]
		return v, nil
	}
	for _, fd := range kept {
		sys.Close(fd)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make transit: %w", err)
	}
	v.in, v.out = pair[0], pair[1]
	return v, nil
}

func isTransit(fd int) bool {
	domain, e1 := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	typ, e2 := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return e1 == 0 && e2 == 0 && domain == unix.AF_UNIX && typ == unix.SOCK_SEQPACKET
}

// Kept returns the descriptors that the holder is to keep. They are not copies.
func (v *Vault) Kept() []int { return []int{v.in, v.out} }

// Entrust gives the vault the holder's ring, which it owns then. Where the kernel can't do what it takes, it goes on with
// transit.
func (v *Vault) Entrust(ring int) {
	v.dropRing()
	if !supported() {
		sys.Close(ring)
		return
	}
	ours, errno := uring.New(len(v.ops), 1)
	if errno != 0 {
		sys.Close(ring)
		return
	}
	v.ring, v.safe = ours, ring
	for place := range uint32(wire.VaultPlaces) {
		v.free = append(v.free, place)
	}
}

func (v *Vault) dropRing() {
	if v.ring != nil {
		v.ring.Close()
		sys.Close(v.safe)
	}
	v.ring, v.safe, v.free = nil, -1, nil
}

// Close lets go of everything. What was not settled stays with the holder.
func (v *Vault) Close() {
	v.dropRing()
	sys.Close(v.in)
	sys.Close(v.out)
}

// Listener is a listening socket as Accept needs to know it.
type Listener struct {
	FD       int
	Nonblock bool // as its flags are
}

// Accept takes a connection without waiting: EAGAIN if there is none. The connection's descriptor is close-on-exec, and
// non-blocking if that is asked for.
func (v *Vault) Accept(l Listener, nonblock bool) (Conn, syscall.Errno) {
	flags := 0
	if nonblock {
		flags = unix.SOCK_NONBLOCK
	}
	if v.ring == nil || len(v.free) == 0 {
		return v.acceptByTransit(l, flags)
	}
	conn, errno := v.acceptByRing(l.FD, flags)
	if v.ring.Broken() {
		v.dropRing()
	}
	return conn, errno
}

// acceptByRing accepts into our ring's table, copies it from there to the holder's and to a descriptor, and empties our
// table again. The kernel runs the four operations within one system call, or on the way out of it if the thread is being
// killed.
func (v *Vault) acceptByRing(listener, flags int) (Conn, syscall.Errno) {
	place := v.free[len(v.free)-1]
	v.peerLen = uint32(len(v.peer))
	v.ops = [4]uring.Op{
		{
			Opcode: uring.OpAccept, Flags: uring.FlagLink, Priority: uring.AcceptDontWait, FD: int32(listener),
			Addr: uint64(uintptr(unsafe.Pointer(&v.peer))), Off: uint64(uintptr(unsafe.Pointer(&v.peerLen))),
			OpFlags: uint32(flags), FileIndex: 1,
		},
		{
			Opcode: uring.OpMsgRing, Flags: uring.FlagHardlink, FD: int32(v.safe), Addr: uring.MsgSendFD, Addr3: 0,
			FileIndex: place + 1, OpFlags: uring.MsgCQESkip,
		},
		{Opcode: uring.OpFixedFDInstall, Flags: uring.FlagHardlink | uring.FlagFixedFile, FD: 0},
		{Opcode: uring.OpClose, FileIndex: 1},
	}
	if errno := v.ring.Do(v.ops[:], v.results[:]); errno != 0 {
		return Conn{}, errno
	}
	if v.results[0] < 0 {
		return Conn{}, syscall.Errno(-v.results[0])
	}
	conn := Conn{FD: int(v.results[2]), Peer: decode(v.peer[:min(int(v.peerLen), len(v.peer))])}
	if v.results[1] >= 0 {
		conn.way, conn.place = inRing, place
		v.free = v.free[:len(v.free)-1]
	}
	if conn.FD < 0 { // EMFILE: the agent's own limit
		errno := syscall.Errno(-conn.FD)
		v.Settle(conn)
		return Conn{}, errno
	}
	return conn, 0
}

func (v *Vault) acceptByTransit(l Listener, flags int) (Conn, syscall.Errno) {
	if sys.Ready(l.FD, unix.POLLIN) == 0 {
		return Conn{}, syscall.EAGAIN
	}
	var buf [procmem.MaxSockaddr]byte
	fd, n, errno := sys.AcceptInto(l.FD, v.in, buf[:], flags|unix.SOCK_CLOEXEC, l.Nonblock)
	if errno != 0 {
		return Conn{}, errno
	}
	return Conn{FD: fd, Peer: decode(buf[:min(n, len(buf))]), way: inTransit}, 0
}

// Settle says that a connection has reached its application, or that nobody is to get it.
func (v *Vault) Settle(c Conn) {
	switch c.way {
	case inRing:
		if uring.Put(v.safe, c.place, -1) == 0 && v.ring != nil {
			v.free = append(v.free, c.place)
		}
	case inTransit:
		v.leaveTransit(c)
	}
}

// leaveTransit takes a connection out of transit. As a rule it is the oldest there; what is not it goes back.
func (v *Vault) leaveTransit(c Conn) {
	cookie, _ := sys.Cookie(c.FD)
	for range wire.VaultPlaces {
		fd, errno := sys.TakeTransit(v.out)
		if errno != 0 {
			return
		}
		if fd < 0 {
			continue
		}
		other, _ := sys.Cookie(fd)
		if other != cookie {
			sys.PutTransit(v.in, fd)
		}
		sys.Close(fd)
		if other == cookie {
			return
		}
	}
}

// Recover returns the connections that the last agent did not settle. Nothing is known about them. They stay in transit until
// the ring has them, so that this agent may be killed here, too; what is then in both comes back twice, and is one.
func (v *Vault) Recover() []Conn {
	all, count := v.inspect()
	moved := false
	for i := range all {
		moved = v.toRing(&all[i]) || moved
	}
	if moved || len(all) < count {
		v.clean(all, count)
	}
	return all
}

// inspect returns each connection in transit once, and how many messages there are.
func (v *Vault) inspect() (all []Conn, count int) {
	if sys.PeekTransitFrom(v.out, true) != 0 {
		return nil, 0
	}
	defer func() { _ = sys.PeekTransitFrom(v.out, false) }()
	seen := make(map[uint64]bool)
	for ; count < maxTransit; count++ {
		fd, errno := sys.PeekTransit(v.out)
		if errno != 0 {
			break
		}
		if fd < 0 {
			continue
		}
		cookie, errno := sys.Cookie(fd)
		if errno != 0 || seen[cookie] {
			sys.Close(fd)
			continue
		}
		seen[cookie] = true
		all = append(all, Conn{FD: fd, Peer: peer(fd), way: inTransit, cookie: cookie})
	}
	return all, count
}

// toRing moves a connection to the holder's ring, if there is one with room. It is in transit still.
func (v *Vault) toRing(c *Conn) bool {
	n := len(v.free)
	if n == 0 || uring.Put(v.safe, v.free[n-1], c.FD) != 0 {
		return false
	}
	c.way, c.place = inRing, v.free[n-1]
	v.free = v.free[:n-1]
	return true
}

// clean empties transit of its first count messages, but for the connections that it protects.
func (v *Vault) clean(all []Conn, count int) {
	keep := make(map[uint64]bool)
	for _, c := range all {
		keep[c.cookie] = c.way == inTransit
	}
	for range count {
		fd, errno := sys.TakeTransit(v.out)
		if errno != 0 {
			return
		}
		if fd < 0 {
			continue
		}
		if cookie, errno := sys.Cookie(fd); errno == 0 && keep[cookie] {
			sys.PutTransit(v.in, fd)
			keep[cookie] = false
		}
		sys.Close(fd)
	}
}

// peer returns the real address of a connection's other end.
func peer(fd int) netip.AddrPort {
	var buf [procmem.MaxSockaddr]byte
	n, errno := sys.Getpeername(fd, buf[:])
	if errno != 0 {
		return netip.AddrPort{}
	}
	return decode(buf[:min(n, len(buf))])
}

func decode(b []byte) netip.AddrPort {
	sa, errno := procmem.ParseSockaddr(b)
	if errno != 0 || !sa.Addr.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(sa.Addr.Addr().Unmap(), sa.Addr.Port())
}
