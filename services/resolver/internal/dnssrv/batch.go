package dnssrv

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"
)

// batchSize is how many packets one system call receives or sends. A reader that is not behind gets them one by one.
const batchSize = 32

// batchConn receives and sends several packets with one system call. ipv4.Message and ipv6.Message are one type.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// batch returns the socket for use with batches.
func (l *Listener) batch() batchConn {
	if l.addr.Addr().Is4() {
		return ipv4.NewPacketConn(l.packets)
	}
	return ipv6.NewPacketConn(l.packets)
}

// readBatches serves the UDP socket of one address until it is closed. What can be answered at once goes out together.
func (s *Server) readBatches(ctx context.Context, g *errgroup.Group, l *Listener) error {
	conn := l.batch()
	in, replies := make([]ipv4.Message, batchSize), make([]ipv4.Message, 0, batchSize)
	out := make([][]byte, batchSize)
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, maxQuerySize)}
		out[i] = make([]byte, 2*MaxUDPSize)
	}
	for {
		count, err := conn.ReadBatch(in, 0)
		if over, err := s.readOver(ctx, l, err); over {
			return err
		}
		if err != nil {
			s.metrics.dropped.Inc()
			if !sleep(ctx, errorPause(err)) {
				return nil
			}
			continue
		}
		replies = replies[:0]
		for i := range in[:count] {
			m := &in[i]
			peer, ok := m.Addr.(*net.UDPAddr)
			if !ok || peer.Port == 0 {
				s.metrics.dropped.Inc()
				continue
			}
			from := unmapped(peer.AddrPort())
			if n := s.quick(from.Addr(), m.Buffers[0][:m.N], out[i]); n > 0 {
				replies = append(replies, ipv4.Message{Buffers: [][]byte{out[i][:n]}, Addr: peer})
				continue
			}
			s.serve(ctx, g, s.packet(from, m.Buffers[0][:m.N], out[i], l.sendTo(peer.AddrPort())))
		}
		s.sendBatch(conn, replies)
	}
}

// sendTo returns what sends a reply.
func (l *Listener) sendTo(to netip.AddrPort) func([]byte) error {
	return func(reply []byte) error {
		_, err := l.packets.WriteToUDPAddrPort(reply, to)
		return err
	}
}

// sendBatch sends replies. One that the kernel does not take holds up no other.
func (s *Server) sendBatch(conn batchConn, replies []ipv4.Message) {
	for len(replies) > 0 {
		n, err := conn.WriteBatch(replies, 0)
		if err != nil || n <= 0 {
			s.metrics.unsent.Inc()
			n = 1
		}
		replies = replies[n:]
	}
}
