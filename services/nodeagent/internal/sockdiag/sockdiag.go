// Package sockdiag learns from the kernel which sockets exist and which have just been destroyed, by NETLINK_SOCK_DIAG
// (sock_diag(7)).
//
// Invariant: sockets are known by cookie (SO_COOKIE), which the kernel never uses twice. The network namespace is that
// of the thread that calls [OpenDestroy] or [Dump]. Start reading at [DestroyMonitor.Run].
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"appswitch.io/internal/ax"
	"golang.org/x/sys/unix"
)

// State is the state of a socket as the kernel counts it. UDP knows Established (connected) and Closed; a TCP socket
// that is bound and nothing more is Closed, too.
type State uint8

// The states, from include/net/tcp_states.h.
const (
	Established State = 1
	SynSent     State = 2
	SynRecv     State = 3
	FinWait1    State = 4
	FinWait2    State = 5
	TimeWait    State = 6
	Closed      State = 7
	CloseWait   State = 8
	LastAck     State = 9
	Listen      State = 10
	Closing     State = 11
	NewSynRecv  State = 12
)

// Sock is a socket.
type Sock struct {
	Cookie uint64
	Family int // AF_INET or AF_INET6
	Proto  ax.Protocol
	State  State
	Local  netip.AddrPort // unmapped; the wildcard address if it is bound to that
	Remote netip.AddrPort // unmapped; port 0 if it is not connected
	Inode  uint64         // 0 once no descriptor refers to it
	UID    uint32
	Queue  uint32 // bytes to read; of a listening TCP socket, connections to accept
}

// Sizes and offsets of struct inet_diag_msg (linux/inet_diag.h), the payload of every message.
const (
	sizeDiagMsg  = 72
	offFamily    = 0
	offState     = 1
	offSrcPort   = 4
	offDstPort   = 6
	offSrc       = 8
	offDst       = 24
	offCookie    = 44
	offQueue     = 56
	offUID       = 64
	offInode     = 68
	sizeNlHeader = unix.SizeofNlMsghdr
)

var errMalformed = errors.New("sock_diag: malformed message from the kernel")

// eachMessage calls visit for the netlink messages of a datagram, until it returns an error. The last one may be cut
// off by a short buffer.
func eachMessage(b []byte, visit func(kind, flags uint16, body []byte) error) error {
	for len(b) > 0 {
		if len(b) < sizeNlHeader {
			return errMalformed
		}
		length := binary.NativeEndian.Uint32(b)
		if length < sizeNlHeader {
			return errMalformed
		}
		end := min(int64(length), int64(len(b)))
		if err := visit(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), b[sizeNlHeader:end]); err != nil {
			return err
		}
		aligned := min((int64(length)+3)&^3, int64(len(b)))
		b = b[aligned:]
	}
	return nil
}

// cookieOf reads the cookie from a struct inet_diag_msg.
func cookieOf(body []byte) (uint64, bool) {
	if len(body) < sizeDiagMsg {
		return 0, false
	}
	return uint64(binary.NativeEndian.Uint32(body[offCookie:])) | uint64(binary.NativeEndian.Uint32(body[offCookie+4:]))<<32, true
}

// sockOf reads a struct inet_diag_msg, which does not tell the protocol.
func sockOf(body []byte, proto ax.Protocol) (Sock, error) {
	cookie, ok := cookieOf(body)
	if !ok {
		return Sock{}, errMalformed
	}
	s := Sock{
		Cookie: cookie, Family: int(body[offFamily]), Proto: proto, State: State(body[offState]),
		Inode: uint64(binary.NativeEndian.Uint32(body[offInode:])), UID: binary.NativeEndian.Uint32(body[offUID:]),
		Queue: binary.NativeEndian.Uint32(body[offQueue:]),
	}
	src, okSrc := addrOf(s.Family, body[offSrc:])
	dst, okDst := addrOf(s.Family, body[offDst:])
	if !okSrc || !okDst {
		return Sock{}, fmt.Errorf("%w: address family %d", errMalformed, s.Family)
	}
	s.Local = netip.AddrPortFrom(src, binary.BigEndian.Uint16(body[offSrcPort:]))
	s.Remote = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(body[offDstPort:]))
	return s, nil
}

func addrOf(family int, b []byte) (netip.Addr, bool) {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(b[:4])), true
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b[:16])).Unmap(), true
	}
	return netip.Addr{}, false
}
