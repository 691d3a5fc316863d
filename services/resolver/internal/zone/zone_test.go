package zone

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const origin = "appswitch.local."

// endpoint reads "id name proto service host", with "-" for no name.
func endpoint(t testing.TB, line string) ax.Endpoint {
	t.Helper()
	f := strings.Fields(line)
	proto, err := ax.ParseProtocol(f[2])
	if err != nil {
		t.Fatal(err)
	}
	return ax.Endpoint{
		ID: ax.EndpointID(f[0]), App: "a", Node: "n", Name: strings.Trim(f[1], "-"), Proto: proto,
		Service: netip.MustParseAddrPort(f[3]), Host: netip.MustParseAddrPort(f[4]), Stale: len(f) > 5 && f[5] == "stale",
	}
}

func build(t testing.TB) *Builder {
	b := NewBuilder(origin, []netip.Addr{netip.MustParseAddr("10.0.0.1")})
	for _, line := range []string{
		"e1 web tcp 198.18.0.1:80 10.0.0.1:40001",
		"e2 WEB tcp 198.18.0.1:80 10.0.0.2:40001",
		"e3 web tcp 198.18.0.1:443 10.0.0.1:40002",
		"e4 two tcp 198.18.0.2:80 10.0.0.1:40003",
		"e5 two.appswitch.local. tcp 198.18.0.3:80 10.0.0.1:40004",
		"e6 two tcp 198.18.0.3:8080 10.0.0.1:40005",
		"e7 api.prod.example tcp 198.18.0.4:80 10.0.0.1:40006",
		"e8 six tcp [fd00::6]:80 10.0.0.1:40007",
		"e9 six tcp 198.18.0.6:80 10.0.0.1:40008",
		"e10 names udp 198.18.0.7:53 10.0.0.1:40009",
		"e11 names tcp 198.18.0.7:53 10.0.0.1:40010",
		"e12 - tcp 1.1.1.1:80 10.0.0.1:40011",
		"e13 - tcp 10.0.0.2:80 10.0.0.2:40012",
		"e14 old tcp 198.18.0.8:80 10.0.0.1:40013 stale",
		"e15 half tcp 198.18.0.9:80 10.0.0.1:40014 stale",
		"e16 half tcp 198.18.0.10:80 10.0.0.1:40015",
		"e17 sixonly tcp [fd00::7]:80 10.0.0.1:40016",
	} {
		if err := b.PutEndpoint(endpoint(t, line)); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []ax.VirtualService{
		{Name: "shop", Addr: netip.MustParseAddr("198.18.1.1"), Ports: []ax.PortMapping{{Virtual: 8080, Backend: 80}}, Backends: []ax.Backend{{Addr: netip.MustParseAddr("198.18.0.1"), Weight: 1}}},
		{Name: "all", Addr: netip.MustParseAddr("198.18.1.2"), Backends: []ax.Backend{{Addr: netip.MustParseAddr("198.18.0.1"), Weight: 1}, {Addr: netip.MustParseAddr("198.18.0.7"), Weight: 1}}},
		{Name: "lonely", Addr: netip.MustParseAddr("198.18.1.3"), Ports: []ax.PortMapping{{Virtual: 1, Backend: 2}}, Backends: []ax.Backend{{Addr: netip.MustParseAddr("203.0.113.9"), Weight: 1}}},
		{Name: "unallocated", Backends: []ax.Backend{{Addr: netip.MustParseAddr("198.18.0.1"), Weight: 1}}},
	} {
		if err := b.PutVirtualService(v); err != nil {
			t.Fatal(err)
		}
	}
	b.PutClaim(netip.MustParseAddr("198.18.9.9"))
	return b
}

// soa is what goes with a negative answer, by its owner.
func soa(owner string) string {
	return owner + " 1 IN SOA ns.dns.appswitch.local. hostmaster.appswitch.local. 42 7200 1800 86400 1"
}

func TestLookup(t *testing.T) {
	z := build(t).Zone(42)
	for _, tt := range []struct {
		name  string
		qtype uint16
		kind  Kind
		zone  string // the answer, then ";; " and the other sections
	}{
		{"web.", dns.TypeA, Success, "web. 5 IN A 198.18.0.1"},
		{"web.appswitch.local.", dns.TypeA, Success, "web.appswitch.local. 5 IN A 198.18.0.1"},
		{"WeB.AppSwitch.LOCAL.", dns.TypeA, Success, "WeB.AppSwitch.LOCAL. 5 IN A 198.18.0.1"},
		{"web.", dns.TypeAAAA, NoData, ";; " + soa(".")},
		{"web.appswitch.local.", dns.TypeAAAA, NoData, ";; " + soa(origin)},
		{"web.appswitch.local.", dns.TypeMX, NoData, ";; " + soa(origin)},
		{"web.appswitch.local.", dns.TypeHTTPS, NoData, ";; " + soa(origin)},
		{"web.", dns.TypeANY, Success, `web. 5 IN HINFO "RFC8482" ""`},
		{"two.", dns.TypeA, Success, "two. 5 IN A 198.18.0.2\ntwo. 5 IN A 198.18.0.3"},
		{"six.", dns.TypeA, Success, "six. 5 IN A 198.18.0.6"},
		{"six.", dns.TypeAAAA, Success, "six. 5 IN AAAA fd00::6"},
		{"sixonly.", dns.TypeAAAA, Success, "sixonly. 5 IN AAAA fd00::7"},
		{"sixonly.", dns.TypeA, NoData, ";; " + soa(".")},
		{"sixonly.appswitch.local.", dns.TypeA, NoData, ";; " + soa(origin)},

		{"nosuch.", dns.TypeA, NXDomain, ";; " + soa(".")},
		{"nosuch.appswitch.local.", dns.TypeA, NXDomain, ";; " + soa(origin)},
		{"a.web.appswitch.local.", dns.TypeA, NXDomain, ";; " + soa(origin)},
		{"a.web.", dns.TypeA, Foreign, ""},
		{`we\.b.appswitch.local.`, dns.TypeA, NXDomain, ";; " + soa(origin)},
		{`x\.appswitch.local.`, dns.TypeA, Foreign, ""},
		{"unallocated.", dns.TypeA, NXDomain, ";; " + soa(".")},
		{"xappswitch.local.", dns.TypeA, Foreign, ""},
		{"local.", dns.TypeA, NXDomain, ";; " + soa(".")},
		{"example.com.", dns.TypeA, Foreign, ""},
		{".", dns.TypeNS, Foreign, ""},

		{"api.prod.example.", dns.TypeA, Success, "api.prod.example. 5 IN A 198.18.0.4"},
		{"api.prod.example.appswitch.local.", dns.TypeA, Success, "api.prod.example.appswitch.local. 5 IN A 198.18.0.4"},
		{"prod.example.appswitch.local.", dns.TypeA, NoData, ";; " + soa(origin)},
		{"prod.example.", dns.TypeA, Foreign, ""},
		{"example.", dns.TypeA, NoData, ";; " + soa(".")},
		{"_80._tcp.api.prod.example.", dns.TypeSRV, Success, "_80._tcp.api.prod.example. 5 IN SRV 0 1 80 api.prod.example.appswitch.local.\n;; api.prod.example.appswitch.local. 5 IN A 198.18.0.4"},
		{"_81._tcp.api.prod.example.", dns.TypeSRV, Foreign, ""},

		{"appswitch.local.", dns.TypeSOA, Success, "appswitch.local. 5 IN SOA ns.dns.appswitch.local. hostmaster.appswitch.local. 42 7200 1800 86400 1"},
		{"appswitch.local.", dns.TypeNS, Success, "appswitch.local. 5 IN NS ns.dns.appswitch.local.\n;; ns.dns.appswitch.local. 5 IN A 10.0.0.1"},
		{"appswitch.local.", dns.TypeA, NoData, ";; " + soa(origin)},
		{"ns.dns.appswitch.local.", dns.TypeA, Success, "ns.dns.appswitch.local. 5 IN A 10.0.0.1"},
		{"dns.appswitch.local.", dns.TypeA, NoData, ";; " + soa(origin)},

		{"_80._tcp.web.", dns.TypeSRV, Success, "_80._tcp.web. 5 IN SRV 0 1 80 web.appswitch.local.\n;; web.appswitch.local. 5 IN A 198.18.0.1"},
		{"_80._tcp.web.appswitch.local.", dns.TypeA, NoData, ";; " + soa(origin)},
		{"_81._tcp.web.appswitch.local.", dns.TypeSRV, NXDomain, ";; " + soa(origin)},
		{"_80._udp.web.", dns.TypeSRV, NXDomain, ";; " + soa(".")},
		{"_080._tcp.web.", dns.TypeSRV, Foreign, ""},
		{"_tcp.web.appswitch.local.", dns.TypeSRV, NoData, ";; " + soa(origin)},
		{"_udp.web.appswitch.local.", dns.TypeSRV, NXDomain, ";; " + soa(origin)},
		{"_80._tcp.nosuch.", dns.TypeSRV, NXDomain, ";; " + soa(".")},
		{"_80._tcp.example.com.", dns.TypeSRV, Foreign, ""},
		{"web.", dns.TypeSRV, Success, "web. 5 IN SRV 0 1 80 web.appswitch.local.\nweb. 5 IN SRV 0 1 443 web.appswitch.local.\n;; web.appswitch.local. 5 IN A 198.18.0.1"},
		{"_53._udp.names.", dns.TypeSRV, Success, "_53._udp.names. 5 IN SRV 0 1 53 names.appswitch.local.\n;; names.appswitch.local. 5 IN A 198.18.0.7"},
		{"names.", dns.TypeSRV, Success, "names. 5 IN SRV 0 1 53 names.appswitch.local.\n;; names.appswitch.local. 5 IN A 198.18.0.7"},
		// Port 80 is served by both addresses, 8080 by one of them only.
		{"_80._tcp.two.", dns.TypeSRV, Success, "_80._tcp.two. 5 IN SRV 0 1 80 two.appswitch.local.\n;; two.appswitch.local. 5 IN A 198.18.0.2\ntwo.appswitch.local. 5 IN A 198.18.0.3"},
		{"_8080._tcp.two.", dns.TypeSRV, Success, "_8080._tcp.two. 5 IN SRV 0 1 8080 198-18-0-3.two.appswitch.local.\n;; 198-18-0-3.two.appswitch.local. 5 IN A 198.18.0.3"},
		{"198-18-0-3.two.appswitch.local.", dns.TypeA, Success, "198-18-0-3.two.appswitch.local. 5 IN A 198.18.0.3"},
		{"198-18-0-4.two.appswitch.local.", dns.TypeA, NXDomain, ";; " + soa(origin)},
		{"fd00-0000-0000-0000-0000-0000-0000-0006.six.appswitch.local.", dns.TypeAAAA, Success, "fd00-0000-0000-0000-0000-0000-0000-0006.six.appswitch.local. 5 IN AAAA fd00::6"},

		{"shop.", dns.TypeA, Success, "shop. 5 IN A 198.18.1.1"},
		{"_8080._tcp.shop.", dns.TypeSRV, Success, "_8080._tcp.shop. 5 IN SRV 0 1 8080 shop.appswitch.local.\n;; shop.appswitch.local. 5 IN A 198.18.1.1"},
		{"_53._udp.all.", dns.TypeSRV, Success, "_53._udp.all. 5 IN SRV 0 1 53 all.appswitch.local.\n;; all.appswitch.local. 5 IN A 198.18.1.2"},
		{"_1._tcp.lonely.", dns.TypeSRV, Success, "_1._tcp.lonely. 5 IN SRV 0 1 1 lonely.appswitch.local.\n;; lonely.appswitch.local. 5 IN A 198.18.1.3"},

		{"old.", dns.TypeA, Success, "old. 5 IN A 198.18.0.8"},
		{"half.", dns.TypeA, Success, "half. 5 IN A 198.18.0.10"},

		{"1.0.18.198.in-addr.arpa.", dns.TypePTR, Success, "1.0.18.198.in-addr.arpa. 5 IN PTR web.appswitch.local."},
		{"1.0.18.198.IN-ADDR.arpa.", dns.TypePTR, Success, "1.0.18.198.IN-ADDR.arpa. 5 IN PTR web.appswitch.local."},
		{"1.0.18.198.in-addr.arpa.", dns.TypeA, NoData, ";; " + soa("1.0.18.198.in-addr.arpa.")},
		{"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, Success, "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR six.appswitch.local."},
		{"1.1.1.1.in-addr.arpa.", dns.TypePTR, NoData, ";; " + soa("1.1.1.1.in-addr.arpa.")},
		{"9.9.18.198.in-addr.arpa.", dns.TypePTR, NoData, ";; " + soa("9.9.18.198.in-addr.arpa.")},
		{"2.0.0.10.in-addr.arpa.", dns.TypePTR, Foreign, ""},
		{"8.8.8.8.in-addr.arpa.", dns.TypePTR, Foreign, ""},
		{"8.8.8.in-addr.arpa.", dns.TypePTR, Foreign, ""},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, Success, "1.0.0.127.in-addr.arpa. 5 IN PTR localhost."},

		{"localhost.", dns.TypeA, Success, "localhost. 5 IN A 127.0.0.1"},
		{"localhost.", dns.TypeAAAA, Success, "localhost. 5 IN AAAA ::1"},
	} {
		got := z.Lookup(tt.name, tt.qtype, 0)
		if got.Kind != tt.kind {
			t.Errorf("%s %s: kind %d, want %d", tt.name, dns.TypeToString[tt.qtype], got.Kind, tt.kind)
		}
		text := zoneText(got.Answer)
		if more := zoneText(append(got.Ns, got.Extra...)); more != "" {
			text = strings.TrimPrefix(text+"\n;; "+more, "\n")
		}
		if text != tt.zone {
			t.Errorf("%s %s:\n%s\nwant\n%s", tt.name, dns.TypeToString[tt.qtype], text, tt.zone)
		}
	}
}

func zoneText(rrs []dns.RR) string {
	lines := make([]string, len(rrs))
	for i, rr := range rrs {
		lines[i] = strings.ReplaceAll(rr.String(), "\t", " ")
	}
	return strings.Join(lines, "\n")
}

func TestRotation(t *testing.T) {
	b := NewBuilder(origin, nil)
	for i := range 3 * MaxRecords {
		if err := b.PutEndpoint(endpoint(t, fmt.Sprintf("e%d many tcp 198.18.%d.%d:80 10.0.0.1:40000", i, i/256, i%256))); err != nil {
			t.Fatal(err)
		}
	}
	z := b.Zone(1)
	first := map[string]bool{}
	for turn := range uint32(3 * MaxRecords) {
		a := z.Lookup("many.", dns.TypeA, turn)
		if len(a.Answer) != MaxRecords {
			t.Fatalf("%d records, want %d", len(a.Answer), MaxRecords)
		}
		first[a.Answer[0].String()] = true
	}
	if len(first) != 3*MaxRecords {
		t.Errorf("%d of %d addresses ever come first", len(first), 3*MaxRecords)
	}
}

func TestBadNames(t *testing.T) {
	long := strings.Repeat("a.", 100) + "a"
	for _, name := range []string{"", ".", "a..b", "-a", "a-", "_a", "a b", `a\b`, "ä", strings.Repeat("a", 64), long, "localhost", "x.localhost", ".appswitch.local"} {
		b := NewBuilder(origin, nil)
		e := endpoint(t, "e x tcp 198.18.0.1:80 10.0.0.1:40000")
		e.Name = name
		err := b.PutEndpoint(e)
		if name != "" && err == nil {
			t.Errorf("name %q is accepted", name)
		}
		if z := b.Zone(1); z.Len() != 0 {
			t.Errorf("name %q is in the zone", name)
		}
		b.DeleteEndpoint("e")
		b.Zone(2)
		if len(b.names)+len(b.addrs)+len(b.inner) != 0 {
			t.Errorf("name %q leaves something behind", name)
		}
	}
}

func TestParseDomain(t *testing.T) {
	for in, want := range map[string]string{"appswitch.local": origin, "AppSwitch.Local.": origin, "x": "x.", "": "", "a b": "", "a..b": ""} {
		got, err := ParseDomain(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseDomain(%q) = %q, %v", in, got, err)
		}
	}
}

func TestOurs(t *testing.T) {
	for name, want := range map[string]bool{
		"web.": true, "WEB.appswitch.LOCAL.": true, "appswitch.local.": true, "_80._tcp.web.": true, "_tcp.web.": true,
		".": false, "example.com.": false, "_80._tcp.example.com.": false, "1.1.1.1.in-addr.arpa.": false, "xappswitch.local.": false,
	} {
		if Ours(name, origin) != want {
			t.Errorf("Ours(%q) = %v", name, !want)
		}
	}
}

func hostsText(z *Zone) []string {
	var out []string
	for name, h := range z.Hosts() {
		out = append(out, fmt.Sprint(name, h.Addrs, h.Services))
	}
	slices.Sort(out)
	return out
}
