package dnssrv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// errUnusable marks a reply after which another server may know better.
var errUnusable = errors.New("unusable reply")

// question is what another server is asked.
type question struct {
	dns.Question
	dnssec, cd bool
}

func (f question) message(edns bool) *dns.Msg {
	m := &dns.Msg{Question: []dns.Question{f.Question}}
	m.Id = dns.Id() // from crypto/rand
	m.RecursionDesired = true
	m.CheckingDisabled = f.cd
	m.AuthenticatedData = true // tell whether it was validated (RFC 6840); who does not ask is not told
	if edns {
		m.SetEdns0(MaxUDPSize, f.dnssec)
	}
	return m
}

// exchange asks one server: over UDP, over TCP if the reply is truncated, and without EDNS if it can't have that.
func exchange(ctx context.Context, server netip.AddrPort, f question) (*dns.Msg, error) {
	ask := f.message(true)
	reply, err := over(ctx, udp, server, ask)
	if err == nil && ask.IsEdns0() != nil && reply.IsEdns0() == nil && (reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented) {
		ask = f.message(false)
		reply, err = over(ctx, udp, server, ask)
	}
	if err == nil && reply.Truncated {
		ask.Id = dns.Id()
		reply, err = over(ctx, tcp, server, ask)
	}
	if err != nil {
		return nil, err
	}
	switch reply.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return reply, nil
	}
	return reply, fmt.Errorf("%w: %s says %s", errUnusable, server, dns.RcodeToString[reply.Rcode])
}

// over makes one exchange. Each has a socket of its own: a port that nobody can guess, and no replies to others.
func over(ctx context.Context, network string, server netip.AddrPort, ask *dns.Msg) (*dns.Msg, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
		if ctx.Err() != nil { // the two deadlines have raced
			return nil, ctx.Err()
		}
	}
	c := &dns.Conn{Conn: conn, UDPSize: maxQuerySize}
	if err := c.WriteMsg(ask); err != nil {
		return nil, err
	}
	for {
		b, err := c.ReadMsgHeader(nil)
		if err != nil {
			if errors.Is(err, dns.ErrShortRead) {
				continue
			}
			return nil, err
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(b); err != nil || !matches(ask, reply) {
			if network == tcp {
				return nil, fmt.Errorf("%s: the reply is not one to what was asked", server)
			}
			continue // forged or late; the right one may still come
		}
		return reply, nil
	}
}

// matches reports whether a message is the reply to what was asked.
func matches(ask, reply *dns.Msg) bool {
	if !reply.Response || reply.Id != ask.Id || reply.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(reply.Question) == 0 { // servers that fail may leave it out
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	a, r := ask.Question[0], reply.Question[0]
	return len(reply.Question) == 1 && r.Qtype == a.Qtype && r.Qclass == a.Qclass && strings.EqualFold(r.Name, a.Name)
}
