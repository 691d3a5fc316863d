package seccomp

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"appswitch.io/services/nodeagent/internal/crashpoint"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// Offsets in struct msghdr of what recvmsg(2) returns there.
const (
	offsetNameLen = 8
	offsetCtlLen  = 40
	offsetFlags   = 48
)

func (t *task) recvfrom(c *call) {
	flags := c.int(3)
	fd, s, ok := t.udp(c, 0)
	if !ok {
		return
	}
	m := message{name: c.args[4], lenAddr: c.args[5], spans: []span{{c.args[1], c.args[2]}}}
	t.receive(c, fd, flags, func() (int64, syscall.Errno) { return t.receiveOne(c, fd, s, &m, flags) })
}

func (t *task) recvmsg(c *call) {
	flags := c.int(2)
	fd, s, ok := t.udp(c, 0)
	if !ok {
		return
	}
	m, errno := readMessage(c, c.args[1])
	if errno != 0 {
		sys.Close(fd)
		t.fail(c, errno)
		return
	}
	t.receive(c, fd, flags, func() (int64, syscall.Errno) { return t.receiveOne(c, fd, s, &m, flags) })
}

func (t *task) recvmmsg(c *call) {
	flags := c.int(3)
	fd, s, ok := t.udp(c, 0)
	if !ok {
		return
	}
	deadline, errno := receiveDeadline(c)
	if errno != 0 {
		sys.Close(fd)
		t.fail(c, errno)
		return
	}
	got := int64(0)
	partial := flags&(unix.MSG_WAITFORONE|unix.MSG_DONTWAIT) != 0 || sys.Flags(fd)&unix.O_NONBLOCK != 0
	t.receive(c, fd, flags, func() (int64, syscall.Errno) {
		for n := min(int64(uint32(c.args[2])), maxIovecs); got < n; {
			at := c.args[1] + uint64(got)*sizeMmsghdr
			m, errno := readMessage(c, at)
			var size int64
			if errno == 0 {
				size, errno = t.receiveOne(c, fd, s, &m, flags&^unix.MSG_WAITFORONE)
			}
			if errno == 0 {
				errno = c.task().WriteUint32(at+sizeMsghdr, uint32(size))
			}
			if errno == syscall.EAGAIN && (got == 0 || !partial) {
				return 0, errno
			}
			if errno != 0 && got == 0 {
				return 0, errno
			}
			if errno != 0 {
				break
			}
			got++
			if !deadline.IsZero() && !now().Before(deadline) {
				break // the kernel too looks at the time only after each datagram (recvmmsg(2), Bugs)
			}
		}
		if !deadline.IsZero() && got > 0 {
			return got, returnRest(c, deadline)
		}
		return got, 0
	})
}

// receiveDeadline reads the timeout of recvmmsg; zero if it has none.
func receiveDeadline(c *call) (time.Time, syscall.Errno) {
	if c.args[4] == 0 {
		return time.Time{}, 0
	}
	var raw [16]byte
	if errno := sys.ReadMemory(int(c.tid), c.args[4], raw[:]); errno != 0 {
		return time.Time{}, errno
	}
	sec, nsec := int64(binary.NativeEndian.Uint64(raw[:])), int64(binary.NativeEndian.Uint64(raw[8:]))
	if sec < 0 || nsec < 0 || nsec >= int64(time.Second) {
		return time.Time{}, syscall.EINVAL
	}
	return now().Add(time.Duration(min(sec, maxTimeoutSeconds))*time.Second + time.Duration(nsec)), 0
}

const maxTimeoutSeconds = 1 << 32 // what time.Duration can hold, and nobody waits for

// returnRest stores what is left of the timeout, as the kernel does.
func returnRest(c *call, deadline time.Time) syscall.Errno {
	rest := max(deadline.Sub(now()), 0)
	var raw [16]byte
	binary.NativeEndian.PutUint64(raw[:], uint64(rest/time.Second))
	binary.NativeEndian.PutUint64(raw[8:], uint64(rest%time.Second))
	return sys.WriteMemory(int(c.tid), c.args[4], raw[:])
}

func (t *task) receive(c *call, fd, flags int, try func() (int64, syscall.Errno)) {
	t.untilReady(c, fd, unix.EPOLLIN, flags, sys.ReceiveTimeout, try)
}

// receiveOne takes a datagram from the socket and copies it to the caller, its source as a virtual address.
func (t *task) receiveOne(c *call, fd int, s socktab.Socket, m *message, flags int) (int64, syscall.Errno) {
	if !sys.Valid(t.listener, c.id) {
		return 0, syscall.EINTR
	}
	room := 0
	for _, sp := range m.spans {
		room += int(min(sp.length, uint64(maxDatagram-room)))
	}
	if t.buf == nil {
		t.buf = make([]byte, maxDatagram)
	}
	var sa [procmem.MaxSockaddr]byte
	var control [maxControl]byte
	hdr := unix.Msghdr{Name: &sa[0], Namelen: uint32(len(sa))}
	iov := unix.Iovec{Base: unsafe.SliceData(t.buf), Len: uint64(room)}
	hdr.Iov, hdr.Iovlen = &iov, 1
	if n := min(m.ctlLen, maxControl); m.control != 0 && n > 0 {
		hdr.Control, hdr.Controllen = &control[0], n
	}
	flags &= unix.MSG_PEEK | unix.MSG_TRUNC | unix.MSG_ERRQUEUE
	n, from, asked, errno := t.takeDatagram(fd, s, &hdr, room, flags)
	if errno != 0 {
		return 0, errno
	}
	data := t.buf[:min(n, room)]
	t.showControl(s, asked, control[:min(hdr.Controllen, maxControl)])
	if errno := scatter(c, m.spans, data); errno != 0 {
		return 0, errno
	}
	crashpoint.Here(crashpoint.DatagramReceived)
	return int64(n), t.returnHeader(c, s, m, from, &hdr, control[:min(hdr.Controllen, maxControl)])
}

// takeDatagram receives into t.buf what the application may see, and drops what comes before.
func (t *task) takeDatagram(fd int, s socktab.Socket, hdr *unix.Msghdr, room, flags int) (n int, from netip.AddrPort, asked netip.Addr, _ syscall.Errno) {
	nameRoom, ctlRoom := hdr.Namelen, hdr.Controllen
	for range maxRejected {
		n, errno := sys.Recvmsg(fd, hdr, flags)
		if errno != 0 {
			return 0, from, asked, errno
		}
		sa := unsafe.Slice(hdr.Name, nameRoom)
		from, asked, ok := t.sender(s, decodeReal(sa[:min(hdr.Namelen, nameRoom)]), t.buf[:min(n, room)])
		if ok || flags&unix.MSG_ERRQUEUE != 0 {
			return n, from, asked, 0
		}
		if flags&unix.MSG_PEEK != 0 {
			_, _ = sys.Recvmsg(fd, &unix.Msghdr{}, 0) // it is still there
		}
		hdr.Namelen, hdr.Controllen = nameRoom, ctlRoom
	}
	return 0, from, asked, syscall.EAGAIN
}

func scatter(c *call, spans []span, data []byte) syscall.Errno {
	for _, sp := range spans {
		n := int(min(sp.length, uint64(len(data))))
		if errno := sys.WriteMemory(int(c.tid), sp.base, data[:n]); errno != 0 {
			return errno
		}
		data = data[n:]
	}
	return 0
}

// returnHeader stores the address, its length, ancillary data and flags where the call wants them.
func (t *task) returnHeader(c *call, s socktab.Socket, m *message, from netip.AddrPort, hdr *unix.Msghdr, control []byte) syscall.Errno {
	if m.header == 0 {
		if m.name == 0 {
			return 0
		}
		return c.task().WriteSockaddr(m.name, m.lenAddr, s.Domain, from)
	}
	nameLen := uint32(0)
	if m.name != 0 && from.IsValid() {
		var buf [procmem.SizeInet6]byte
		sa := procmem.AppendSockaddr(buf[:0], s.Domain, from)
		if errno := sys.WriteMemory(int(c.tid), m.name, sa[:min(int(m.nameLen), len(sa))]); errno != 0 {
			return errno
		}
		nameLen = uint32(len(sa))
	}
	if errno := sys.WriteMemory(int(c.tid), m.control, control); len(control) > 0 && errno != 0 {
		return errno
	}
	var ctlLen [8]byte
	binary.NativeEndian.PutUint64(ctlLen[:], uint64(len(control)))
	for _, errno := range []syscall.Errno{
		c.task().WriteUint32(m.header+offsetNameLen, nameLen),
		sys.WriteMemory(int(c.tid), m.header+offsetCtlLen, ctlLen[:]),
		c.task().WriteUint32(m.header+offsetFlags, uint32(hdr.Flags)),
	} {
		if errno != 0 {
			return errno
		}
	}
	return 0
}

const (
	lookupsPerSocket = 16   // name lookups under way on one unconnected socket
	maxLookupSockets = 4096 // of one application
)

// lookups remembers, by the id of the DNS query, which nameserver an unconnected socket has asked: the answer comes
// from our resolver and must seem to come from there. musl asks several at once.
type lookups map[uint64]*[lookupsPerSocket]lookup

type lookup struct {
	id    uint16
	asked netip.AddrPort
}

func (l *lookups) asked(cookie uint64, query []byte, nameserver netip.AddrPort) {
	if len(query) < 2 {
		return
	}
	if *l == nil {
		*l = lookups{}
	}
	if (*l)[cookie] == nil {
		if len(*l) >= maxLookupSockets {
			for other := range *l {
				delete(*l, other)
				break
			}
		}
		(*l)[cookie] = new([lookupsPerSocket]lookup)
	}
	ring := (*l)[cookie]
	copy(ring[1:], ring[:])
	ring[0] = lookup{id: binary.BigEndian.Uint16(query), asked: nameserver}
}

func (l *lookups) answered(cookie uint64, reply []byte) (netip.AddrPort, bool) {
	ring := (*l)[cookie]
	if ring == nil || !ring[0].asked.IsValid() {
		return netip.AddrPort{}, false
	}
	if len(reply) >= 2 {
		id := binary.BigEndian.Uint16(reply)
		for _, e := range ring {
			if e.asked.IsValid() && e.id == id {
				return e.asked, true
			}
		}
	}
	return ring[0].asked, true
}
