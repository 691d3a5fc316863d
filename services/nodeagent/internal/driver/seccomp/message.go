package seccomp

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// Limits of a message that is carried out on behalf of a caller.
const (
	maxDatagram = 1 << 16 // longer ones can't be sent over UDP, and are cut when received
	maxIovecs   = 1024    // UIO_MAXIOV
	maxControl  = 1024    // bytes of ancillary data returned
	sizeIovec   = 16
	sizeMsghdr  = 56 // struct msghdr on 64-bit machines
	sizeMmsghdr = 64
)

// span is a piece of the caller's memory.
type span struct{ base, length uint64 }

// message is a copy of the caller's struct msghdr, or what sendto and recvfrom say in its place.
type message struct {
	header  uint64 // address of the msghdr; 0 for sendto and recvfrom
	name    uint64
	nameLen uint32
	lenAddr uint64 // recvfrom: where the length of the address is
	spans   []span
	control uint64
	ctlLen  uint64
}

// readMessage copies a msghdr with its vector.
func readMessage(c *call, at uint64) (message, syscall.Errno) {
	var raw [sizeMsghdr]byte
	if errno := sys.ReadMemory(int(c.tid), at, raw[:]); errno != 0 {
		return message{}, errno
	}
	ne := binary.NativeEndian
	m := message{header: at, name: ne.Uint64(raw[:]), nameLen: ne.Uint32(raw[8:]), control: ne.Uint64(raw[32:]), ctlLen: ne.Uint64(raw[40:])}
	n := ne.Uint64(raw[24:])
	if n > maxIovecs {
		return message{}, syscall.EMSGSIZE
	}
	vec := make([]byte, n*sizeIovec)
	if errno := sys.ReadMemory(int(c.tid), ne.Uint64(raw[16:]), vec); errno != 0 {
		return message{}, errno
	}
	for i := range int(n) {
		m.spans = append(m.spans, span{ne.Uint64(vec[i*sizeIovec:]), ne.Uint64(vec[i*sizeIovec+8:])})
	}
	return m, 0
}

// udp looks up the socket of a call of the sendmsg family. A call on anything but a UDP socket goes on natively: it
// carries no address that counts (TCP ignores it; TCP Fast Open, which doesn't, is refused).
func (t *task) udp(c *call, flags int) (fd int, s socktab.Socket, ok bool) {
	fd, s, kind, errno := t.lookup(c)
	switch {
	case errno != 0:
		t.fail(c, errno)
		return -1, s, false
	case kind == unrelated:
		t.pass(c)
		return -1, s, false
	case s.Proto != ax.UDP:
		sys.Close(fd)
		if flags&unix.MSG_FASTOPEN != 0 {
			t.fail(c, syscall.EOPNOTSUPP)
		} else {
			t.pass(c)
		}
		return -1, s, false
	}
	return fd, s, true
}

func (t *task) sendto(c *call) {
	fd, s, ok := t.udp(c, c.int(3))
	if !ok {
		return
	}
	m := message{name: c.args[4], nameLen: uint32(c.args[5]), spans: []span{{c.args[1], c.args[2]}}}
	t.send(c, fd, c.int(3), func() (int64, syscall.Errno) { return t.sendOne(c, fd, s, &m, c.int(3)) })
}

func (t *task) sendmsg(c *call) {
	fd, s, ok := t.udp(c, c.int(2))
	if !ok {
		return
	}
	m, errno := readMessage(c, c.args[1])
	if errno != 0 {
		sys.Close(fd)
		t.fail(c, errno)
		return
	}
	t.send(c, fd, c.int(2), func() (int64, syscall.Errno) { return t.sendOne(c, fd, s, &m, c.int(2)) })
}

func (t *task) sendmmsg(c *call) {
	flags := c.int(3)
	fd, s, ok := t.udp(c, flags)
	if !ok {
		return
	}
	sent := int64(0)
	t.send(c, fd, flags, func() (int64, syscall.Errno) {
		for n := min(int64(uint32(c.args[2])), maxIovecs); sent < n; sent++ {
			at := c.args[1] + uint64(sent)*sizeMmsghdr
			m, errno := readMessage(c, at)
			var size int64
			if errno == 0 {
				size, errno = t.sendOne(c, fd, s, &m, flags)
			}
			if errno == 0 {
				errno = c.task().WriteUint32(at+sizeMsghdr, uint32(size))
			}
			if errno != 0 && sent > 0 {
				return sent, 0 // as natively: what was sent counts, the error is met again
			}
			if errno != 0 {
				return 0, errno
			}
		}
		return sent, 0
	})
}

// send runs a send that never waits, and parks the call while the socket's buffer is full.
func (t *task) send(c *call, fd, flags int, try func() (int64, syscall.Errno)) {
	t.untilReady(c, fd, unix.EPOLLOUT, flags, sys.SendTimeout, try)
}

// sendOne copies a datagram from the caller and sends it where its address leads.
func (t *task) sendOne(c *call, fd int, s socktab.Socket, m *message, flags int) (int64, syscall.Errno) {
	var hdr unix.Msghdr
	var sa [procmem.SizeInet6]byte
	var dest netip.AddrPort
	var to target
	if m.name != 0 && m.nameLen != 0 {
		var errno syscall.Errno
		if dest, to, errno = t.destination(c, fd, s, m); errno != 0 {
			return 0, errno
		}
		b := procmem.AppendSockaddr(sa[:0], s.Domain, to.addr)
		hdr.Name, hdr.Namelen = &b[0], uint32(len(b))
	}
	data, errno := t.gather(c, m.spans)
	if errno != 0 {
		return 0, errno
	}
	control, errno := t.sentControl(c, s, dest, m)
	if errno != 0 {
		return 0, errno
	}
	if len(control) > 0 {
		hdr.Control, hdr.Controllen = &control[0], uint64(len(control))
	}
	if !sys.Valid(t.listener, c.id) {
		return 0, syscall.EINTR
	}
	switch {
	case to.reason == ax.ReasonDNS:
		t.lookups.asked(s.Cookie, data, dest)
	case dest.IsValid():
		if errno := t.announce(fd, s, dest, &to); errno != 0 {
			return 0, errno
		}
	}
	if len(data) > 0 {
		iov := unix.Iovec{Base: unsafe.SliceData(data), Len: uint64(len(data))}
		hdr.Iov, hdr.Iovlen = &iov, 1
	}
	n, errno := sys.Sendmsg(fd, &hdr, flags&(unix.MSG_CONFIRM|unix.MSG_DONTROUTE|unix.MSG_MORE|unix.MSG_OOB))
	return int64(n), errno
}

// destination reads the address of a datagram, as the application knows it, and decides where it goes.
func (t *task) destination(c *call, fd int, s socktab.Socket, m *message) (dest netip.AddrPort, to target, errno syscall.Errno) {
	var buf [procmem.MaxSockaddr]byte
	raw, errno := c.task().ReadSockaddr(m.name, int32(m.nameLen), &buf)
	if errno != 0 {
		return dest, to, errno
	}
	sa, errno := receiver(s.Domain, raw)
	if errno == 0 && (s.Domain != unix.AF_INET6 || sa.Family != unix.AF_INET) { // udpv6_sendmsg takes AF_INET too
		errno = checkFamily(&s, fd, sa)
	}
	if errno != 0 {
		return dest, to, errno
	}
	dest = localhost(unmap(sa.Addr))
	to, ok := t.resolveDatagram(s, dest)
	if !ok {
		return dest, to, syscall.ENETDOWN
	}
	t.openTo4(fd, &s, to.addr.Addr())
	t.logDatagram(dest, &to)
	return dest, to, to.errno
}

// receiver decodes the address of a datagram, with the errno of udp_sendmsg and udpv6_sendmsg.
func receiver(domain int, raw []byte) (procmem.Sockaddr, syscall.Errno) {
	if domain == unix.AF_INET {
		if len(raw) < procmem.SizeInet4 {
			return procmem.Sockaddr{}, syscall.EINVAL
		}
		switch binary.NativeEndian.Uint16(raw) {
		case unix.AF_INET:
		case unix.AF_UNSPEC:
			binary.NativeEndian.PutUint16(raw, unix.AF_INET)
		default:
			return procmem.Sockaddr{}, syscall.EAFNOSUPPORT
		}
	}
	sa, errno := procmem.ParseSockaddr(raw)
	if errno == 0 && sa.Addr.IsValid() && sa.Addr.Port() == 0 {
		errno = syscall.EINVAL
	}
	return sa, errno
}

// gather copies a datagram out of the caller's memory. The copy is valid until the next one.
func (t *task) gather(c *call, spans []span) ([]byte, syscall.Errno) {
	if t.buf == nil {
		t.buf = make([]byte, maxDatagram)
	}
	n := 0
	for _, s := range spans {
		if s.length > uint64(maxDatagram-n) {
			return nil, syscall.EMSGSIZE
		}
		if errno := sys.ReadMemory(int(c.tid), s.base, t.buf[n:n+int(s.length)]); errno != 0 {
			return nil, errno
		}
		n += int(s.length)
	}
	return t.buf[:n], 0
}

// untilReady runs try, which must not wait, now and whenever fd is ready, until it gives something else than EAGAIN,
// the socket's timeout has passed, or the caller is gone. It owns fd.
func (t *task) untilReady(c *call, fd int, events uint32, flags int, timeout func(int) (unix.Timeval, syscall.Errno), try func() (int64, syscall.Errno)) {
	end := func(n int64, errno syscall.Errno) {
		if errno != 0 {
			t.fail(c, errno)
		} else {
			t.answer(c, n)
		}
	}
	n, errno := try()
	if errno != syscall.EAGAIN || flags&unix.MSG_DONTWAIT != 0 || sys.Flags(fd)&unix.O_NONBLOCK != 0 {
		sys.Close(fd)
		end(n, errno)
		return
	}
	var deadline time.Time
	if tv, errno := timeout(fd); errno == 0 && (tv.Sec != 0 || tv.Usec != 0) {
		deadline = now().Add(time.Duration(tv.Nano()))
	}
	var p *parked
	err := t.watch(fd, events, func(uint32) {
		n, errno := try()
		if errno != syscall.EAGAIN {
			t.unpark(p)
			end(n, errno)
		}
	})
	if err != nil {
		sys.Close(fd)
		t.fail(c, syscall.ENOMEM)
		return
	}
	p = t.park(c, deadline, func() { t.unpark(p); t.fail(c, syscall.EAGAIN) }, func() { t.unwatch(fd); sys.Close(fd) })
}
