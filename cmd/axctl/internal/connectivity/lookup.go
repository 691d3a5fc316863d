package connectivity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Ways to ask a nameserver. Programs differ in them, and the kernel does too: what a connected socket receives comes from
// its peer or not at all, whereas the program itself looks at the source of what an unconnected one receives.
const (
	overConnected   = "udp"             // from a connected UDP socket, with send
	overUnconnected = "udp-unconnected" // from one that is not, with sendto
	overTCP         = "tcp"
)

// resolvConf names a program's nameservers.
const resolvConf = "/etc/resolv.conf"

// Lookup asks this program's first nameserver for the IPv4 addresses of a name, once and within a time, and tells how it
// ended: the addresses, and as Peer who answered.
func Lookup(ctx context.Context, name, over string, timeout time.Duration) Outcome {
	var o Outcome
	if err := lookup(ctx, name, over, timeout, &o); err != nil {
		o.Error = err.Error()
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			o.Errno = errnoName(errno)
		}
	}
	return o
}

func lookup(ctx context.Context, name, over string, timeout time.Duration, o *Outcome) error {
	config, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return err
	}
	if len(config.Servers) == 0 {
		return fmt.Errorf("%s names no nameserver", resolvConf)
	}
	o.Asked = net.JoinHostPort(config.Servers[0], config.Port)
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var reply *dns.Msg
	switch over {
	case overUnconnected:
		reply, err = askUnconnected(question, timeout, o)
	case overConnected, overTCP:
		reply, err = askConnected(ctx, over, question, timeout, o)
	default:
		return fmt.Errorf("%q is no way to ask: want %s, %s or %s", over, overConnected, overUnconnected, overTCP)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", o.Asked, err)
	}
	if reply.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("ask %s: %s", o.Asked, dns.RcodeToString[reply.Rcode])
	}
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			o.Addrs = append(o.Addrs, a.A.String())
		}
	}
	return nil
}

func askConnected(ctx context.Context, network string, question *dns.Msg, timeout time.Duration, o *Outcome) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: timeout}
	conn, err := client.DialContext(ctx, o.Asked)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	o.Local, o.Peer = conn.LocalAddr().String(), conn.RemoteAddr().String()
	reply, _, err := client.ExchangeWithConnContext(ctx, question, conn)
	return reply, err
}

func askUnconnected(question *dns.Msg, timeout time.Duration, o *Outcome) (*dns.Msg, error) {
	to, err := netip.ParseAddrPort(o.Asked)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	packet, err := question.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
		return nil, err
	}
	buf := make([]byte, dns.MaxMsgSize)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return nil, err
	}
	o.Local, o.Peer = conn.LocalAddr().String(), netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).String()
	reply := new(dns.Msg)
	if err := reply.Unpack(buf[:n]); err != nil {
		return nil, err
	}
	if reply.Id != question.Id {
		return nil, dns.ErrId
	}
	return reply, nil
}
