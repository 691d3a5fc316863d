package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"appswitch.io/internal/ax"
	"golang.org/x/sys/unix"
)

// Limits of a dump.
const (
	dumpBuffer  = 256 << 10       // bytes of one datagram; the kernel fills what it is given
	dumpTimeout = 5 * time.Second // for one datagram
)

// Dump calls visit for every TCP and UDP socket of this network namespace, over IPv4 and IPv6, in any state. The kernel
// doesn't list a socket that has no port yet; and before Linux 6.8 none that is TCP, bound and neither listening nor
// connected. Sockets that come and go meanwhile may be missing; one that stays is not.
func Dump(visit func(Sock)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("dump sockets: socket: %w", err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(dumpTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("dump sockets: SO_RCVTIMEO: %w", err)
	}
	d := dumper{fd: fd, buf: make([]byte, dumpBuffer), visit: visit}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []ax.Protocol{ax.TCP, ax.UDP} {
			if err := d.dump(family, proto); err != nil {
				return fmt.Errorf("dump %s sockets of family %d: %w", proto, family, err)
			}
		}
	}
	return nil
}

type dumper struct {
	fd    int
	buf   []byte
	seq   uint32
	visit func(Sock)
}

func (d *dumper) dump(family uint8, proto ax.Protocol) error {
	d.seq++
	if err := unix.Sendto(d.fd, dumpRequest(family, proto, d.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("no answer in %s: %w", dumpTimeout, err)
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		done, err := parseDump(d.buf[:n], proto, d.visit)
		if err != nil || done {
			return err
		}
	}
}

var errDone = errors.New("done")

// parseDump reads one datagram of a dump and reports whether it is the last.
func parseDump(b []byte, proto ax.Protocol, visit func(Sock)) (done bool, err error) {
	err = eachMessage(b, func(kind, _ uint16, body []byte) error {
		switch kind {
		case unix.NLMSG_DONE:
			return errDone
		case unix.NLMSG_ERROR:
			return errorOf(body)
		case unix.SOCK_DIAG_BY_FAMILY:
			s, err := sockOf(body, proto)
			if err == nil {
				visit(s)
			}
			return err
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return true, nil
	}
	return false, err
}

// errorOf reads a struct nlmsgerr.
func errorOf(body []byte) error {
	if len(body) < 4 {
		return errMalformed
	}
	if e := int32(binary.NativeEndian.Uint32(body)); e < 0 {
		return syscall.Errno(-e)
	}
	return nil // an acknowledgement
}

// dumpRequest builds a struct nlmsghdr with a struct inet_diag_req_v2 that asks for all states.
func dumpRequest(family uint8, proto ax.Protocol, seq uint32) []byte {
	const (
		sizeRequest = 56
		length      = sizeNlHeader + sizeRequest
		allStates   = 0xffffffff
	)
	b := make([]byte, length)
	binary.NativeEndian.PutUint32(b, length)
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], seq)
	body := b[sizeNlHeader:]
	body[0] = family
	body[1] = unix.IPPROTO_TCP
	if proto == ax.UDP {
		body[1] = unix.IPPROTO_UDP
	}
	binary.NativeEndian.PutUint32(body[4:], allStates)
	return b
}
