package dnssrv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// packet is a message that arrived.
type packet struct {
	transport string
	from      netip.Addr
	data      []byte       // valid until serve returns
	out       []byte       // for a reply made before serve returns
	done      func([]byte) // called exactly once, with the reply or nil
}

// readPackets serves a UDP socket until it is closed.
func (s *Server) readPackets(ctx context.Context, g *errgroup.Group, l *Listener) error {
	if !l.wildcard() {
		return s.readBatches(ctx, g, l)
	}
	data, out := make([]byte, maxQuerySize), make([]byte, 2*MaxUDPSize)
	for {
		n, from, send, err := l.read(data)
		if over, err := s.readOver(ctx, l, err); over {
			return err
		}
		if err != nil || from.Port() == 0 {
			s.metrics.dropped.Inc()
			if !sleep(ctx, errorPause(err)) {
				return nil
			}
			continue
		}
		s.serve(ctx, g, s.packet(from, data[:n], out, send))
	}
}

// readOver reports whether a read was the last one, and what that means.
func (s *Server) readOver(ctx context.Context, l *Listener, err error) (bool, error) {
	if !errors.Is(err, net.ErrClosed) {
		return false, nil
	}
	if ctx.Err() == nil {
		return true, fmt.Errorf("listen on %s: %w", l.addr, err)
	}
	return true, nil
}

func (s *Server) packet(from netip.AddrPort, data, out []byte, send func([]byte) error) packet {
	return packet{transport: udp, from: from.Addr(), data: data, out: out, done: func(reply []byte) {
		if reply == nil {
			return
		}
		if err := send(reply); err != nil {
			s.metrics.unsent.Inc()
		}
	}}
}

// errorPause keeps a socket that fails again and again from burning a processor.
func errorPause(err error) time.Duration {
	if err == nil {
		return 0
	}
	return acceptInterval
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// read receives a packet at a wildcard address; send answers it from the address that it was sent to.
func (l *Listener) read(b []byte) (n int, from netip.AddrPort, send func([]byte) error, err error) {
	n, session, err := dns.ReadFromSessionUDP(l.packets, b)
	if err != nil {
		return 0, netip.AddrPort{}, nil, err
	}
	peer, ok := session.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, nil, fmt.Errorf("packet from %s", session.RemoteAddr())
	}
	return n, unmapped(peer.AddrPort()), func(reply []byte) error {
		_, err := dns.WriteToSessionUDP(l.packets, reply, session)
		return err
	}, nil
}

// acceptConns serves a TCP listener until it is closed.
func (s *Server) acceptConns(ctx context.Context, g *errgroup.Group, l *Listener) error {
	for {
		conn, err := l.stream.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			if ctx.Err() == nil {
				return fmt.Errorf("listen on %s: %w", l.addr, err)
			}
			return nil
		}
		if err != nil { // out of descriptors, or the client has gone
			s.metrics.dropped.Inc()
			if !sleep(ctx, acceptInterval) {
				return nil
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
		default:
			s.metrics.overflow.WithLabelValues("connections").Inc()
			_ = conn.Close()
			continue
		}
		g.Go(func() error {
			defer func() { <-s.conns }()
			s.serveConn(ctx, g, conn)
			return nil
		})
	}
}

// serveConn serves a TCP connection until the client closes it or is silent for too long. Queries that wait do not
// hold up those behind them (RFC 7766).
func (s *Server) serveConn(ctx context.Context, g *errgroup.Group, conn *net.TCPConn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	c := &tcpConn{conn: conn, pipelined: make(chan struct{}, MaxPipelined)}
	defer c.pending.Wait()
	from := unmapped(conn.RemoteAddr().(*net.TCPAddr).AddrPort()).Addr()
	for {
		data, err := c.read()
		if err != nil {
			return
		}
		select {
		case c.pipelined <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c.pending.Add(1)
		s.serve(ctx, g, packet{transport: tcp, from: from, data: data, done: func(reply []byte) {
			defer c.pending.Done()
			defer func() { <-c.pipelined }()
			if reply == nil || c.write(reply) != nil {
				_ = conn.Close() // nonsense was said, or nobody listens
			}
		}})
	}
}

type tcpConn struct {
	conn      *net.TCPConn
	pipelined chan struct{} // a slot for each query without reply
	pending   sync.WaitGroup
	buf       []byte // of the last query read

	mu sync.Mutex // held while writing, so that replies do not mix
}

func (c *tcpConn) read() ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(IdleTimeout)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c.conn, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if cap(c.buf) < n {
		c.buf = make([]byte, max(n, 512))
	}
	_, err := io.ReadFull(c.conn, c.buf[:n])
	return c.buf[:n], err
}

func (c *tcpConn) write(reply []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(reply)+2), uint16(len(reply))), reply...))
	return err
}
