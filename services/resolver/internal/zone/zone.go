package zone

import (
	"iter"
	"net/netip"
	"strings"

	"appswitch.io/internal/ax"
	"github.com/miekg/dns"
)

// What answers are like.
const (
	TTL         = 5   // seconds a record may be kept
	NegativeTTL = 1   // seconds "no such name" may be kept
	MaxRecords  = 256 // records of one answer; of longer ones a random run is given
)

const (
	localhost  = "localhost"
	nameserver = "ns.dns" // bare name of the resolver itself
)

// Service is one service of a name.
type Service struct {
	Proto ax.Protocol
	Addr  netip.AddrPort // virtual address
}

// Host is a name and what it stands for. It is immutable.
type Host struct {
	Name     string       // bare, in lower case
	Addrs    []netip.Addr // sorted
	Services []Service    // sorted by protocol, port, address
}

// Zone is the names at one revision of the service table. It is immutable; make one with a Builder.
type Zone struct {
	origin   string // fully qualified, lower case
	revision ax.Revision
	hosts    cowMap[string, *Host]        // by bare name
	inner    cowMap[string, struct{}]     // names that only have names below them
	reverse  cowMap[netip.Addr, []string] // virtual addresses, with their bare names if any, sorted
}

// Kind says how a question ends.
type Kind uint8

// The kinds of answers.
const (
	Foreign  Kind = iota // not a name of the table: somebody else's to answer
	Success              // there are records
	NoData               // the name exists, but has no records of this type
	NXDomain             // the name does not exist
)

// Answer is the sections of a reply.
type Answer struct {
	Kind              Kind
	Answer, Ns, Extra []dns.RR
}

// Origin returns the domain, fully qualified and in lower case.
func (z *Zone) Origin() string { return z.origin }

// Revision returns the revision of the table that the zone shows.
func (z *Zone) Revision() ax.Revision { return z.revision }

// Len returns the number of names.
func (z *Zone) Len() int { return z.hosts.len }

// Host looks up a name: bare, with the domain or fully qualified.
func (z *Zone) Host(name string) (*Host, bool) {
	bare, err := Bare(name, z.origin)
	if err != nil {
		return nil, false
	}
	return z.hosts.get(bare)
}

// Hosts visits all names in no particular order.
func (z *Zone) Hosts() iter.Seq2[string, *Host] { return z.hosts.all() }

// Since tells how z differs from an older zone of the same Builder: names that are new or changed, and names gone.
// It costs what has changed, not what there is.
func (z *Zone) Since(older *Zone) (upserts []*Host, removes []string) {
	z.hosts.since(older.hosts, func(name string, h *Host) {
		if was, ok := older.hosts.get(name); !ok || was != h {
			upserts = append(upserts, h)
		}
	}, func(name string) { removes = append(removes, name) })
	return upserts, removes
}

// Ours reports whether a question can only be answered by the table, whatever it holds: names of the domain, and
// names of a single label, which mean nothing elsewhere.
func Ours(qname, origin string) bool {
	name := lower(qname)
	if name == "." || strings.HasSuffix(name, ".arpa.") {
		return false
	}
	if dns.IsSubDomain(origin, name) {
		return true
	}
	return single(strings.TrimSuffix(name, "."))
}

// single reports whether a name without final dot has one label, apart from what asks for services.
func single(name string) bool {
	_, host, _ := cutService(name)
	return !strings.Contains(host, ".")
}

// Lookup answers a question. The turn, a random number, says which of several records come first.
func (z *Zone) Lookup(qname string, qtype uint16, turn uint32) Answer {
	name := lower(qname)
	q := query{zone: z, owner: qname, qtype: qtype, turn: turn, apex: "."}
	if strings.HasSuffix(name, ".arpa.") {
		return q.pointer(name)
	}
	if strings.IndexByte(name, '\\') >= 0 { // escaped characters: no name of the table has any
		if dns.IsSubDomain(z.origin, name) {
			q.apex = z.origin
			return q.negative(NXDomain)
		}
		return Answer{}
	}
	bare, qualified := strings.CutSuffix(name, z.origin)
	switch {
	case qualified && bare == "":
		q.apex = z.origin
		return q.top()
	case qualified && strings.HasSuffix(bare, "."):
		q.apex = z.origin
		return q.named(bare[:len(bare)-1], true)
	case name == ".":
		return Answer{}
	}
	bare = name[:len(name)-1]
	if bare == localhost || strings.HasSuffix(bare, "."+localhost) {
		return q.addresses([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	}
	return q.named(bare, false)
}

// Addresses returns the addresses of a name of the table, sorted; none if it has none, or if [Zone.Lookup] has to decide.
// The name is fully qualified, in lower case and without escaped characters.
func (z *Zone) Addresses(name string) []netip.Addr {
	if len(name) < 2 || strings.HasSuffix(name, ".arpa.") {
		return nil
	}
	bare, qualified := strings.CutSuffix(name, z.origin)
	if !qualified || strings.HasSuffix(bare, ".") {
		bare = strings.TrimSuffix(bare, ".")
		if h, ok := z.hosts.get(bare); ok {
			return h.Addrs
		}
	}
	return nil
}

// named answers for a bare name; qualified says that it was asked with the domain.
func (q *query) named(bare string, qualified bool) Answer {
	z := q.zone
	if h, ok := z.hosts.get(bare); ok {
		if q.qtype == dns.TypeSRV {
			return q.services(h, service{})
		}
		return q.addresses(h.Addrs)
	}
	ours := qualified || single(bare)
	if s, name, ok := cutService(bare); ok {
		if h, known := z.hosts.get(name); known {
			return q.service(h, s)
		}
	}
	if label, name, ok := strings.Cut(bare, "."); ok {
		if a, dashes := fromDashed(label); dashes {
			if h, known := z.hosts.get(name); known && h.has(a) {
				return q.addresses([]netip.Addr{a})
			}
		}
	}
	if !ours {
		return Answer{}
	}
	if _, ok := z.inner.get(bare); ok {
		return q.negative(NoData)
	}
	return q.negative(NXDomain)
}

func (h *Host) has(a netip.Addr) bool {
	for _, b := range h.Addrs {
		if a == b {
			return true
		}
	}
	return false
}
