package seccomp

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// Ancillary data of datagrams (cmsg(3)). Programs that serve on a wildcard learn by it at which address they were reached,
// and answer from there: both are virtual ones.

const (
	maxSentControl = 8 << 10 // more than the kernel takes by default (net.core.optmem_max) for what UDP knows
	loopbackScope  = 1       // index of the interface on which an application's addresses are: its lo
)

// Offsets in struct in_pktinfo and struct in6_pktinfo.
const (
	sizePktinfo    = 12
	offsetSpecDst  = 4
	offsetPktAddr  = 8
	sizePktinfo6   = 20
	offsetIfindex6 = 16
)

// eachControl calls f with the level, the type and the data of each element, which it may change. It reports false if the
// data is not well formed, as CMSG_OK in the kernel.
func eachControl(b []byte, f func(level, typ int32, data []byte) syscall.Errno) syscall.Errno {
	for len(b) >= unix.SizeofCmsghdr {
		n := binary.NativeEndian.Uint64(b)
		if n < unix.SizeofCmsghdr || n > uint64(len(b)) {
			return syscall.EINVAL
		}
		level, typ := int32(binary.NativeEndian.Uint32(b[8:])), int32(binary.NativeEndian.Uint32(b[12:]))
		if errno := f(level, typ, b[unix.SizeofCmsghdr:n]); errno != 0 {
			return errno
		}
		b = b[min(uint64(len(b)), (n+7)&^7):]
	}
	return 0
}

// showControl makes virtual what received ancillary data says of local addresses. Asked is the one that the sender knows.
func (t *task) showControl(s socktab.Socket, asked netip.Addr, control []byte) {
	_ = eachControl(control, func(level, typ int32, data []byte) syscall.Errno {
		switch {
		case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(data) >= sizePktinfo:
			binary.NativeEndian.PutUint32(data, loopbackScope)
			for _, at := range []int{offsetSpecDst, offsetPktAddr} {
				show4(data[at:at+4], t.localOf(s, asked, netip.AddrFrom4([4]byte(data[at:at+4]))))
			}
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= sizePktinfo6:
			ip := t.localOf(s, asked, netip.AddrFrom16([16]byte(data[:16])).Unmap()).As16()
			copy(data, ip[:])
			binary.NativeEndian.PutUint32(data[offsetIfindex6:], loopbackScope)
		case level == unix.IPPROTO_IP && typ == unix.IP_RECVORIGDSTADDR && len(data) >= 8:
			binary.BigEndian.PutUint16(data[2:], s.Local.Port())
			show4(data[4:8], t.localOf(s, asked, netip.AddrFrom4([4]byte(data[4:8]))))
		}
		return 0
	})
}

func show4(into []byte, ip netip.Addr) {
	if ip.Is4() {
		b := ip.As4()
		copy(into, b[:])
	}
}

// localOf is the virtual address of a socket behind the real one at which a datagram came in.
func (t *task) localOf(s socktab.Socket, asked, ip netip.Addr) netip.Addr {
	switch {
	case s.Foreign || ip != s.Host.Addr() && ip != t.d.cfg.NodeAddr:
		return ip
	case asked.IsValid():
		return asked
	case s.Bound.IsValid() && !s.Bound.Addr().IsUnspecified():
		return s.Bound.Addr()
	case ip.IsLoopback():
		return ip
	}
	return t.app.Addr
}

// sentControl copies ancillary data to be sent, and makes it real. What needs a privilege that the agent has and the
// application has not is refused.
func (t *task) sentControl(c *call, s socktab.Socket, dest netip.AddrPort, m *message) ([]byte, syscall.Errno) {
	if m.control == 0 || m.ctlLen == 0 {
		return nil, 0
	}
	if m.ctlLen > maxSentControl {
		return nil, syscall.ENOBUFS
	}
	b := make([]byte, m.ctlLen)
	if errno := sys.ReadMemory(int(c.tid), m.control, b); errno != 0 {
		return nil, errno
	}
	own := func(ip netip.Addr) bool { return t.own(s, dest, ip) }
	return b, eachControl(b, func(level, typ int32, data []byte) syscall.Errno { return sendControl(own, level, typ, data) })
}

func sendControl(own func(netip.Addr) bool, level, typ int32, data []byte) syscall.Errno {
	switch level {
	case unix.SOL_SOCKET:
		switch typ {
		case unix.SO_TIMESTAMPING_OLD, unix.SO_TIMESTAMPING_NEW, unix.SCM_TXTIME:
			return 0
		case unix.SCM_RIGHTS, unix.SCM_CREDENTIALS: // ignored on such sockets
			return 0
		case unix.SO_MARK:
			return syscall.EPERM
		}
		return syscall.EINVAL
	case unix.IPPROTO_IP:
		switch typ {
		case unix.IP_PKTINFO:
			return sendFrom4(own, data)
		case unix.IP_TTL, unix.IP_TOS:
			return 0
		case unix.IP_RETOPTS:
			return syscall.EPERM // source routes
		}
		return syscall.EINVAL
	case unix.IPPROTO_IPV6:
		switch typ {
		case unix.IPV6_PKTINFO, unix.IPV6_2292PKTINFO:
			return sendFrom6(own, data)
		case unix.IPV6_HOPLIMIT, unix.IPV6_2292HOPLIMIT, unix.IPV6_TCLASS, unix.IPV6_DONTFRAG:
			return 0
		}
		return syscall.EPERM // extension headers
	}
	return 0 // of UDP (UDP_SEGMENT), or ignored by the kernel
}

// own reports whether an address is one from which the application may send: none, its own, or the one at which it was
// asked. The socket has the real one.
func (t *task) own(s socktab.Socket, dest netip.AddrPort, ip netip.Addr) bool {
	if ip.IsUnspecified() || ip.IsLoopback() || ip == t.app.Addr || ip == s.Bound.Addr() {
		return true
	}
	session, ok := t.d.deps.Table.Session(s.Cookie, dest, now())
	return ok && session.Asked == ip
}

func sendFrom4(own func(netip.Addr) bool, data []byte) syscall.Errno {
	if len(data) != sizePktinfo {
		return syscall.EINVAL
	}
	if !own(netip.AddrFrom4([4]byte(data[offsetSpecDst:offsetPktAddr]))) {
		return syscall.ENETUNREACH
	}
	clear(data)
	return 0
}

func sendFrom6(own func(netip.Addr) bool, data []byte) syscall.Errno {
	if len(data) < sizePktinfo6 {
		return syscall.EINVAL
	}
	ip := netip.AddrFrom16([16]byte(data[:16]))
	if !own(ip.Unmap()) {
		return syscall.ENETUNREACH
	}
	clear(data)
	if ip.Is4In6() { // still of that family
		data[10], data[11] = 0xff, 0xff
	}
	return 0
}
