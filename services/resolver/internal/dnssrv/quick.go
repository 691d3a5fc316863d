package dnssrv

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"time"

	"appswitch.io/services/resolver/internal/zone"
	"github.com/miekg/dns"
)

const (
	maxName    = 255 // bytes of a name in a message
	questionAt = headerSize
	pointer    = 0xC000 | questionAt // to the name of the question
	recordSize = 16                  // of an A record whose name is a pointer
)

// express is a handler that answers the most frequent queries from their bytes, as it would in Handle.
type express interface {
	quick(query, out []byte, turn uint32, recursion bool) (n int)
}

// quick answers a query over UDP at once, into out, if it is of the most frequent kind; 0 leaves it to serve.
func (s *Server) quick(from netip.Addr, query, out []byte) (n int) {
	if s.express == nil {
		return 0
	}
	defer func() { // as in ask
		if r := recover(); r != nil {
			s.metrics.failures.Inc()
			s.cfg.Log.Error("query failed", "handler", "express", "panic", r, "stack", string(debug.Stack()))
			n = 0
		}
	}()
	start := time.Now()
	if n = s.express.quick(query, out, rand.Uint32(), s.cfg.MayForward(from)); n > 0 {
		s.metrics.quickQueries.Inc()
		s.metrics.quickSeconds.Observe(time.Since(start).Seconds())
	}
	return n
}

// quick answers the question that nearly all are: one name of the table and its IPv4 addresses, over UDP, with EDNS or
// without. It writes the reply into out and returns its length; 0 leaves the query to the handlers, which know all the rest.
// The turn, a random number, says which address comes first; recursion is whether the client may have queries forwarded.
func (n *Names) quick(b, out []byte, turn uint32, recursion bool) int {
	// A query, standard, not truncated, of exactly one question and nothing else.
	if len(b) < headerSize || b[2]&^1 != 0 || binary.BigEndian.Uint16(b[4:]) != 1 || binary.BigEndian.Uint32(b[6:]) != 0 {
		return 0
	}
	var name [maxName + 1]byte
	end, length := parseQuestion(b, &name)
	if end == 0 {
		return 0
	}
	limit, opt := dns.MinMsgSize, b[end:]
	switch extra := binary.BigEndian.Uint16(b[10:]); {
	case extra == 0 && len(opt) == 0:
	case extra == 1 && plainOPT(opt):
		limit = min(max(int(binary.BigEndian.Uint16(opt[3:])), dns.MinMsgSize), MaxUDPSize)
	default:
		return 0
	}
	if binary.BigEndian.Uint16(b[end-4:]) != dns.TypeA || binary.BigEndian.Uint16(b[end-2:]) != dns.ClassINET {
		return 0
	}
	z := n.Zone()
	if z == nil {
		return 0
	}
	addrs := z.Addresses(string(name[:length]))
	room := (min(limit, len(out)) - end - len(opt)) / recordSize
	if len(addrs) == 0 || len(addrs) > room {
		return 0
	}
	out = append(out[:0], b[:end]...)
	out[2] |= 0x84                 // a reply, authoritative; the opcode is 0, and "recursion desired" comes back
	if out[3] &= 0x10; recursion { // "checking disabled" comes back
		out[3] |= 0x80
	}
	start := int(turn % uint32(len(addrs)))
	for i := range addrs {
		a := addrs[(start+i)%len(addrs)]
		if !a.Is4() {
			return 0
		}
		ip := a.As4()
		out = binary.BigEndian.AppendUint16(out, pointer)
		out = binary.BigEndian.AppendUint16(out, dns.TypeA)
		out = binary.BigEndian.AppendUint16(out, dns.ClassINET)
		out = binary.BigEndian.AppendUint32(out, zone.TTL)
		out = binary.BigEndian.AppendUint16(out, uint16(len(ip)))
		out = append(out, ip[:]...)
	}
	binary.BigEndian.PutUint16(out[6:], uint16(len(addrs)))
	if len(opt) > 0 {
		at := len(out)
		out = append(out, opt...)
		binary.BigEndian.PutUint16(out[at+3:], MaxUDPSize)
		out[at+7], out[at+8] = opt[7]&0x80, 0 // "DNSSEC OK" comes back
	}
	return len(out)
}

// plainOPT reports whether what follows a question is an OPT record of version 0 without options.
func plainOPT(b []byte) bool {
	const size = 11 // root, type, size, extended rcode, version, flags, length
	return len(b) == size && b[0] == 0 && binary.BigEndian.Uint16(b[1:]) == dns.TypeOPT && b[5] == 0 && b[6] == 0 && b[9] == 0 && b[10] == 0
}

// parseQuestion reads the question of a message: where it ends, and its name in lower case with dots, written into name. An end
// of 0 means that it is cut, compressed, or has a character that needs an escape.
func parseQuestion(b []byte, name *[maxName + 1]byte) (end, length int) {
	at := questionAt
	for {
		if at >= len(b) {
			return 0, 0
		}
		n := int(b[at])
		at++
		if n == 0 {
			break
		}
		if n > 63 || at+n > len(b) || length+n+1 > maxName {
			return 0, 0
		}
		for _, c := range b[at : at+n] {
			switch {
			case c >= 'A' && c <= 'Z':
				c += 'a' - 'A'
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return 0, 0
			}
			name[length] = c
			length++
		}
		name[length] = '.'
		length++
		at += n
	}
	if at+4 > len(b) {
		return 0, 0
	}
	return at + 4, length
}
