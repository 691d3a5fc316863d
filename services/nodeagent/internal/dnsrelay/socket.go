package dnsrelay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswerSize is that of the longest UDP payload: what a client allows is between it and the resolver.
const maxAnswerSize = 64 << 10

// answers holds buffers for answers. One is taken only when there is something to read, so that thousands of waiting
// queries need none.
var answers = sync.Pool{New: func() any { b := make([]byte, maxAnswerSize); return &b }}

// socket is the upstream of the real world.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
}

func dial(to netip.AddrPort) (upstream, error) { return dialFrom(nil, to) }

func dialFrom(from *net.UDPAddr, to netip.AddrPort) (upstream, error) {
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, fmt.Errorf("connect to the resolver: %w", err)
	}
	// While nobody has the resolver's port the kernel may choose it for this end: a socket connected to itself, which
	// refuses nothing and keeps the resolver from coming back.
	if conn.LocalAddr().String() == conn.RemoteAddr().String() {
		return nil, errors.Join(errors.New("connect to the resolver: it is not there"), conn.Close())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the resolver: %w", err), conn.Close())
	}
	return &socket{conn: conn, raw: raw}, nil
}

func (s *socket) close() { _ = s.conn.Close() }

func (s *socket) send(query []byte) error {
	_, err := s.conn.Write(query)
	return err
}

func (s *socket) receive(until time.Time, accept func([]byte) bool) error {
	if err := s.conn.SetReadDeadline(until); err != nil {
		return err
	}
	for {
		var failure error
		done := false
		err := s.raw.Read(func(fd uintptr) bool {
			buf := answers.Get().(*[]byte)
			defer answers.Put(buf)
			n, err := unix.Read(int(fd), *buf)
			for errors.Is(err, unix.EINTR) {
				n, err = unix.Read(int(fd), *buf)
			}
			if errors.Is(err, unix.EAGAIN) {
				return false // wait
			}
			if failure = err; err == nil {
				done = accept((*buf)[:n])
			}
			return true
		})
		if err = errors.Join(err, failure); err != nil || done {
			return err
		}
	}
}
