package dnssrv

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// reply makes a reply of zone text: the answer, then ";;" and the authority section.
func reply(t testing.TB, qname string, rcode int, zone string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetRcode(queryFor(qname, dns.TypeA), rcode)
	section := &m.Answer
	for line := range strings.Lines(zone) {
		line = strings.TrimSpace(line)
		switch line {
		case "":
		case ";;":
			section = &m.Ns
		default:
			*section = append(*section, record(line))
		}
	}
	return m
}

func clientQuery(t testing.TB, name string) *Query {
	t.Helper()
	q, _ := parse(mustPack(t, queryFor(name, dns.TypeA)), udp)
	if q == nil {
		t.Fatalf("query for %s is refused", name)
	}
	return q
}

func newCache(t testing.TB, size int) *Cache {
	t.Helper()
	c, err := NewCache(size, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCacheLifetimes(t *testing.T) {
	const soa = "\n;;\nexample.com. 300 IN SOA ns.example.com. h.example.com. 1 2 3 4 30"
	for _, tt := range []struct {
		name  string
		rcode int
		zone  string
		want  time.Duration
	}{
		{"positive", dns.RcodeSuccess, "example.com. 60 IN A 192.0.2.1", time.Minute},
		{"the shortest counts", dns.RcodeSuccess, "example.com. 600 IN CNAME x.example.\nx.example. 20 IN A 192.0.2.1", 20 * time.Second},
		{"capped", dns.RcodeSuccess, "example.com. 864000 IN A 192.0.2.1", MaxTTL},
		{"TTL 0", dns.RcodeSuccess, "example.com. 0 IN A 192.0.2.1", 0},
		{"NXDOMAIN", dns.RcodeNameError, soa, 30 * time.Second},
		{"NODATA", dns.RcodeSuccess, soa, 30 * time.Second},
		{"alias to nothing", dns.RcodeSuccess, "example.com. 10 IN CNAME x.example." + soa, 10 * time.Second},
		{"long negative", dns.RcodeNameError, "\n;;\nexample.com. 90000 IN SOA ns. h. 1 2 3 4 90000", MaxNegativeTTL},
		{"negative without SOA", dns.RcodeNameError, "", 0},
		{"failure", dns.RcodeServerFailure, "", time.Second},
		{"refused", dns.RcodeRefused, "", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCache(t, 10)
			c.put(keyOf(clientQuery(t, "example.com.")), reply(t, "example.com.", tt.rcode, tt.zone))
			cached := func() bool { return c.Handle(t.Context(), clientQuery(t, "EXAMPLE.com.")) != nil }
			if tt.want == 0 {
				if cached() {
					t.Errorf("%s: kept", tt.name)
				}
				return
			}
			time.Sleep(tt.want - time.Nanosecond)
			if !cached() {
				t.Errorf("%s: gone before %s", tt.name, tt.want)
			}
			time.Sleep(time.Nanosecond)
			if cached() {
				t.Errorf("%s: there after %s", tt.name, tt.want)
			}
			if len(c.entries) != 0 || c.bytes != 0 || c.recent.Len() != 0 {
				t.Errorf("%s: left behind: %d entries, %d bytes", tt.name, len(c.entries), c.bytes)
			}
		})
	}
}

func TestCachedRecordsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, 10)
		original := reply(t, "example.com.", dns.RcodeSuccess, "example.com. 60 IN A 192.0.2.1\nexample.com. 999999 IN A 192.0.2.2")
		c.put(keyOf(clientQuery(t, "example.com.")), original)
		time.Sleep(25*time.Second + time.Millisecond)
		m := c.Handle(t.Context(), clientQuery(t, "eXample.com."))
		if m == nil || m.Answer[0].Header().Ttl != 35 || m.Answer[1].Header().Ttl != 3575 || m.Authoritative {
			t.Errorf("got %v", m)
		}
		if m != nil && m.Question[0].Name != "eXample.com." {
			t.Errorf("the question came back as %s", m.Question[0].Name)
		}
		if original.Answer[0].Header().Ttl != 60 {
			t.Error("the cached reply itself was changed")
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(t, 3)
	put := func(name string) {
		c.put(keyOf(clientQuery(t, name)), reply(t, name, dns.RcodeSuccess, name+" 60 IN A 192.0.2.1"))
	}
	has := func(name string) bool { return c.Handle(t.Context(), clientQuery(t, name)) != nil }
	put("a.example.")
	put("b.example.")
	put("c.example.")
	if !has("a.example.") { // and so it is no longer the least recently used
		t.Error("a is gone")
	}
	put("d.example.")
	if has("b.example.") || !has("a.example.") || !has("c.example.") || !has("d.example.") {
		t.Error("the wrong one was dropped")
	}
	if n := testutil.ToFloat64(c.evicted); n != 1 {
		t.Errorf("%v evictions counted", n)
	}
	put("d.example.") // replaces
	if len(c.entries) != 3 {
		t.Errorf("%d entries", len(c.entries))
	}
}

func TestCacheBytesAreBounded(t *testing.T) {
	c := newCache(t, 1<<20)
	text := strings.Repeat(` "`+strings.Repeat("x", 250)+`"`, 60)
	m := reply(t, "n.example.", dns.RcodeSuccess, "n.example. 60 IN TXT"+text)
	m.Question[0].Qtype = dns.TypeTXT
	for i := range MaxCacheBytes / 10_000 {
		c.put(key{name: fmt.Sprintf("n%d.example.", i), qtype: dns.TypeTXT}, m)
	}
	if c.bytes > MaxCacheBytes || c.bytes < MaxCacheBytes-20_000 {
		t.Errorf("%d bytes, want nearly %d", c.bytes, MaxCacheBytes)
	}
	huge := reply(t, "huge.example.", dns.RcodeSuccess, strings.Repeat("huge.example. 60 IN TXT"+text+"\n", 3))
	huge.Question[0].Qtype = dns.TypeTXT
	c.put(key{name: "huge.example."}, huge)
	if _, ok := c.entries[key{name: "huge.example."}]; ok {
		t.Error("a huge reply is kept")
	}
}

func TestCacheOfNothing(t *testing.T) {
	c := newCache(t, 0)
	c.put(key{name: "a."}, reply(t, "a.", dns.RcodeSuccess, "a. 60 IN A 192.0.2.1"))
	if len(c.entries) != 0 {
		t.Error("kept")
	}
}
