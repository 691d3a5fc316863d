package dnssrv

import (
	"context"
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// Sizes of messages.
const (
	MaxUDPSize   = 1232 // of a reply over UDP, and what we advertise: fits unfragmented everywhere (DNS flag day 2020)
	maxQuerySize = 4096 // of a query over UDP
	headerSize   = 12
)

// Handler answers queries.
type Handler interface {
	// Name is the handler's label in metrics.
	Name() string
	// Handle returns the reply, made by q.Reply, or Silence, or nil to leave the query to the next handler. It never
	// writes to the client and keeps nothing of q after it returned.
	Handle(ctx context.Context, q *Query) *dns.Msg
}

// Silence is what a handler returns if the client must get no reply, and ask again later.
var Silence = new(dns.Msg)

// Query is one valid question: of class IN, without meta types.
type Query struct {
	From      netip.Addr // who asks
	Transport string     // "udp" or "tcp"
	Recursion bool       // whether From may have it forwarded
	Name      string     // as asked, fully qualified
	Type      uint16

	msg   *dns.Msg
	opt   *dns.OPT // nil without EDNS
	size  int      // of the longest reply
	extra dns.EDNS0
}

// DNSSEC reports whether the client wants signatures.
func (q *Query) DNSSEC() bool { return q.opt != nil && q.opt.Do() }

// Reply starts a reply.
func (q *Query) Reply(rcode int) *dns.Msg {
	m := new(dns.Msg).SetReply(q.msg)
	m.Rcode = rcode
	m.RecursionAvailable = q.Recursion
	return m
}

// Explain adds to the reply why it is none, for clients that speak EDNS (RFC 8914).
func (q *Query) Explain(code uint16, text string) {
	q.extra = &dns.EDNS0_EDE{InfoCode: code, ExtraText: text}
}

// parse reads a packet. It returns a query; or a reply if that is already clear; or neither if there must be none.
func parse(b []byte, transport string) (*Query, *dns.Msg) {
	if len(b) < headerSize {
		return nil, nil
	}
	flags := binary.BigEndian.Uint16(b[2:])
	if flags&(1<<15) != 0 { // an answer: answering it could go on for ever
		return nil, nil
	}
	msg := new(dns.Msg)
	msg.Id = binary.BigEndian.Uint16(b)
	msg.Opcode = int(flags >> 11 & 0xF)
	q := &Query{Transport: transport, msg: msg, size: dns.MinMsgSize}
	if transport == tcp {
		q.size = dns.MaxMsgSize
	}
	if msg.Opcode != dns.OpcodeQuery {
		return nil, q.Reply(dns.RcodeNotImplemented)
	}
	if err := msg.Unpack(b); err != nil || len(msg.Question) != 1 {
		msg.Question = nil
		return nil, q.Reply(dns.RcodeFormatError)
	}
	if !q.edns() {
		return nil, q.Reply(dns.RcodeFormatError)
	}
	if q.opt != nil && q.opt.Version() != 0 {
		return nil, q.finish(q.Reply(dns.RcodeBadVers))
	}
	q.Name, q.Type = msg.Question[0].Name, msg.Question[0].Qtype
	switch {
	case msg.Question[0].Qclass != dns.ClassINET:
		return nil, q.finish(q.Reply(dns.RcodeRefused))
	case q.Type == dns.TypeOPT || q.Type == dns.TypeNone:
		return nil, q.finish(q.Reply(dns.RcodeFormatError))
	case q.Type >= dns.TypeTKEY && q.Type < dns.TypeANY: // transfers and other meta types
		return nil, q.finish(q.Reply(dns.RcodeRefused))
	}
	return q, nil
}

// edns looks for the OPT record and reports whether there is at most one, at the root.
func (q *Query) edns() bool {
	for _, rr := range q.msg.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if q.opt != nil || opt.Hdr.Name != "." {
			return false
		}
		q.opt = opt
	}
	if q.opt != nil && q.Transport == udp {
		q.size = min(max(int(q.opt.UDPSize()), dns.MinMsgSize), MaxUDPSize)
	}
	return true
}

// finish gives a reply its OPT record and makes it fit: first without compression, then with, then without what
// nobody asked for, and at last truncated.
func (q *Query) finish(m *dns.Msg) *dns.Msg {
	glue := len(m.Extra)
	if q.opt != nil {
		m.SetEdns0(MaxUDPSize, q.opt.Do())
		if q.extra != nil {
			opt := m.Extra[glue].(*dns.OPT)
			opt.Option = append(opt.Option, q.extra)
		}
	}
	m.Compress = false
	if m.Len() <= q.size {
		return m
	}
	m.Compress = true
	if m.Len() <= q.size {
		return m
	}
	if len(m.Answer) > 0 {
		m.Extra = m.Extra[glue:]
	}
	m.Truncate(q.size)
	return m
}
