package dnssrv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	udp = "udp"
	tcp = "tcp"

	udpBuffer    = 1 << 20 // receive buffer of a UDP socket, as far as the kernel grants it
	portAttempts = 16      // to find a port that is free for both transports
)

// Listener is one address at which the server is reached, over UDP and TCP.
type Listener struct {
	addr    netip.AddrPort
	packets *net.UDPConn
	stream  *net.TCPListener
}

// Listen binds an address. With port 0 both transports get the same free port.
func Listen(addr netip.AddrPort) (*Listener, error) {
	attempts := 1
	if addr.Port() == 0 {
		attempts = portAttempts
	}
	var failed error
	for range attempts {
		l, err := listen(addr)
		if err == nil {
			return l, nil
		}
		failed = err
	}
	return nil, failed
}

func listen(addr netip.AddrPort) (*Listener, error) {
	var config net.ListenConfig
	ctx := context.Background() // binding a numeric address does not wait
	pc, err := config.ListenPacket(ctx, udp, addr.String())
	if err != nil {
		return nil, fmt.Errorf("bind UDP: %w", err)
	}
	packets, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("bind UDP %s: got a %T", addr, pc), pc.Close())
	}
	l := &Listener{packets: packets, addr: unmapped(packets.LocalAddr().(*net.UDPAddr).AddrPort())}
	if l.addr.Addr() != addr.Addr() { // "::" stays so, whatever the kernel says
		l.addr = netip.AddrPortFrom(addr.Addr(), l.addr.Port())
	}
	sl, err := config.Listen(ctx, tcp, l.addr.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind TCP: %w", err), packets.Close())
	}
	if l.stream, ok = sl.(*net.TCPListener); !ok {
		return nil, errors.Join(fmt.Errorf("bind TCP %s: got a %T", addr, sl), sl.Close(), packets.Close())
	}
	_ = packets.SetReadBuffer(udpBuffer) // a smaller one only loses more in a burst
	if l.wildcard() {
		// Replies must come from the address that was asked, which only the packet knows.
		err4 := ipv4.NewPacketConn(packets).SetControlMessage(ipv4.FlagDst, true)
		err6 := ipv6.NewPacketConn(packets).SetControlMessage(ipv6.FlagDst, true)
		if err4 != nil && err6 != nil {
			return nil, errors.Join(fmt.Errorf("ask for destination addresses on %s: %w", addr, err4), l.Close())
		}
	}
	return l, nil
}

func (l *Listener) wildcard() bool { return l.addr.Addr().IsUnspecified() }

// Addr returns the address, the same for UDP and TCP.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Close gives the address back.
func (l *Listener) Close() error { return errors.Join(l.packets.Close(), l.stream.Close()) }

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
