package zone

import (
	"net/netip"
	"slices"

	"appswitch.io/internal/ax"
	"github.com/miekg/dns"
)

// query is one question on its way to an answer.
type query struct {
	zone  *Zone
	owner string // as asked: records carry it in the asker's spelling
	qtype uint16
	turn  uint32
	apex  string // owner of the SOA that goes with negative answers: an ancestor of the name, or resolvers in between reject it
}

func (q *query) header(rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: TTL}
}

func (q *query) negative(k Kind) Answer {
	soa := q.zone.soa(q.apex)
	soa.Hdr.Ttl = NegativeTTL
	return Answer{Kind: k, Ns: []dns.RR{soa}}
}

// found ends a question whose name exists.
func (q *query) found(rrs []dns.RR) Answer {
	if q.qtype == dns.TypeANY {
		return Answer{Kind: Success, Answer: []dns.RR{Any(q.owner)}}
	}
	if len(rrs) == 0 {
		return q.negative(NoData)
	}
	return Answer{Kind: Success, Answer: rrs}
}

// Any returns the record that RFC 8482 gives to those who ask for everything.
func Any(owner string) dns.RR {
	return &dns.HINFO{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: TTL}, Cpu: "RFC8482"}
}

// top answers for the domain itself.
func (q *query) top() Answer {
	switch q.qtype {
	case dns.TypeSOA:
		return q.found([]dns.RR{q.zone.soa(q.owner)})
	case dns.TypeNS:
		a := q.found([]dns.RR{&dns.NS{Hdr: q.header(dns.TypeNS), Ns: nameserver + "." + q.zone.origin}})
		if h, ok := q.zone.hosts.get(nameserver); ok {
			a.Extra = q.zone.glue(h.Addrs, nameserver+"."+q.zone.origin)
		}
		return a
	}
	return q.found(nil)
}

func (z *Zone) soa(owner string) *dns.SOA {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: TTL},
		Ns:  nameserver + "." + z.origin, Mbox: "hostmaster." + z.origin,
		Serial: uint32(z.revision), Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: NegativeTTL,
	}
}

// addresses answers for a name with these addresses.
func (q *query) addresses(addrs []netip.Addr) Answer {
	if q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		return q.found(nil)
	}
	return q.found(rotated(addrs, q.turn, func(a netip.Addr) dns.RR {
		if a.Is4() != (q.qtype == dns.TypeA) {
			return nil
		}
		return address(q.header(q.qtype), a)
	}))
}

func address(h dns.RR_Header, a netip.Addr) dns.RR {
	if a.Is4() {
		h.Rrtype = dns.TypeA
		return &dns.A{Hdr: h, A: a.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
}

// rotated makes records of in, starting at a random place; nil ones are left out.
func rotated[T any](in []T, turn uint32, record func(T) dns.RR) []dns.RR {
	if len(in) == 0 {
		return nil
	}
	out := make([]dns.RR, 0, min(len(in), MaxRecords))
	start := int(turn % uint32(len(in)))
	for i := range in {
		if rr := record(in[(start+i)%len(in)]); rr != nil {
			out = append(out, rr)
		}
		if len(out) == MaxRecords {
			break
		}
	}
	return out
}

// service answers for the name of one service of a host.
func (q *query) service(h *Host, s service) Answer {
	if !slices.ContainsFunc(h.Services, s.matches) {
		if q.apex == "." && !single(h.Name) {
			return Answer{} // below a name that may be known elsewhere too
		}
		return q.negative(NXDomain)
	}
	if s.port == 0 {
		return q.found(nil) // only there because of what is below it
	}
	return q.services(h, s)
}

// matches reports whether a service is asked for; a zero port or protocol asks for all.
func (s service) matches(t Service) bool {
	return (s.proto == 0 || s.proto == t.Proto) && (s.port == 0 || s.port == t.Addr.Port())
}

// services answers with the host's services that match.
func (q *query) services(h *Host, want service) Answer {
	if q.qtype != dns.TypeSRV {
		return q.found(nil)
	}
	var extra []dns.RR
	targets := q.targets(h, want)
	a := q.found(rotated(targets, q.turn, func(t target) dns.RR {
		if len(extra) < MaxRecords {
			extra = append(extra, q.zone.glue(t.addrs, t.name)...)
		}
		return &dns.SRV{Hdr: q.header(dns.TypeSRV), Weight: 1, Port: t.port, Target: t.name}
	}))
	// Several ports of one target need its addresses only once.
	a.Extra = dns.Dedup(extra, nil)
	return a
}

// target is what an SRV record points at.
type target struct {
	port  uint16
	name  string
	addrs []netip.Addr
}

// targets groups the services of a host by port. A port that all its addresses serve is at the host's name; any
// other is at names of single addresses, so that nobody is sent where nothing listens.
func (q *query) targets(h *Host, want service) []target {
	ports := map[uint16][]netip.Addr{}
	var order []uint16
	for _, s := range h.Services {
		if !want.matches(s) {
			continue
		}
		port := s.Addr.Port()
		if _, ok := ports[port]; !ok {
			order = append(order, port)
		}
		if !slices.Contains(ports[port], s.Addr.Addr()) { // another protocol on the same port
			ports[port] = append(ports[port], s.Addr.Addr())
		}
	}
	name := h.Name + "." + q.zone.origin
	var out []target
	for _, port := range order {
		if len(ports[port]) == len(h.Addrs) {
			out = append(out, target{port: port, name: name, addrs: h.Addrs})
			continue
		}
		for _, a := range ports[port] {
			out = append(out, target{port: port, name: dashed(a) + "." + name, addrs: []netip.Addr{a}})
		}
	}
	return out
}

// glue makes address records for the additional section.
func (z *Zone) glue(addrs []netip.Addr, name string) []dns.RR {
	return rotated(addrs, 0, func(a netip.Addr) dns.RR {
		return address(dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: TTL}, a)
	})
}

// pointer answers for reverse names. Each virtual address is a zone cut of its own: what surrounds it is not ours.
func (q *query) pointer(name string) Answer {
	a, ok := fromReverse(name)
	if !ok {
		return Answer{}
	}
	q.apex = q.owner
	if a.IsLoopback() {
		return q.pointers([]string{localhost + "."})
	}
	bare, ok := q.zone.reverse.get(a)
	if !ok {
		return Answer{}
	}
	names := make([]string, len(bare))
	for i, n := range bare {
		names[i] = n + "." + q.zone.origin
	}
	return q.pointers(names)
}

func (q *query) pointers(names []string) Answer {
	if q.qtype != dns.TypePTR {
		return q.found(nil)
	}
	return q.found(rotated(names, q.turn, func(n string) dns.RR {
		return &dns.PTR{Hdr: q.header(dns.TypePTR), Ptr: n}
	}))
}

// compareServices orders services by protocol, port and address.
func compareServices(a, b Service) int {
	if a.Proto != b.Proto {
		return int(a.Proto) - int(b.Proto)
	}
	if a.Addr.Port() != b.Addr.Port() {
		return int(a.Addr.Port()) - int(b.Addr.Port())
	}
	return ax.CompareAddrPort(a.Addr, b.Addr)
}
