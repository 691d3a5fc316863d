package feed

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/watch"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"appswitch.io/services/resolver/internal/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(id, name, service string) ax.Endpoint {
	return ax.Endpoint{ID: ax.EndpointID(id), App: "a", Node: "n", Name: name, Proto: ax.TCP,
		Service: netip.MustParseAddrPort(service), Host: netip.MustParseAddrPort("10.0.0.1:40000")}
}

func list(r ax.Revision, endpoints ...ax.Endpoint) *watch.Table {
	t := watch.NewTable()
	t.Revision = r
	for _, e := range endpoints {
		t.Endpoints[e.ID] = e
	}
	return t
}

func kind(f *Feed, name string, qtype uint16) zone.Kind { return f.Zone().Lookup(name, qtype, 0).Kind }

func TestFeed(t *testing.T) {
	f := New("appswitch.local.", nil, slog.New(slog.DiscardHandler))
	z, next := f.Next()
	if z != nil || f.Zone() != nil {
		t.Fatal("there is a zone before the first list")
	}
	f.Replace(list(5, endpoint("e1", "web", "198.18.0.1:80")))
	select {
	case <-next:
	default:
		t.Error("the first list is no news")
	}
	if z, next = f.Next(); z.Revision() != 5 || kind(f, "web.", dns.TypeA) != zone.Success {
		t.Fatal("web is not there")
	}
	claim := netip.MustParseAddr("198.18.0.9")
	f.Apply(watch.Event{Revision: 6, Changes: []watch.Change{
		{Kind: registryv1.Kind_KIND_ENDPOINT, Key: "e2", Value: endpoint("e2", "api", "198.18.0.2:80")},
		{Kind: registryv1.Kind_KIND_VIRTUAL_SERVICE, Key: "shop", Value: ax.VirtualService{Name: "shop", Addr: netip.MustParseAddr("198.18.0.3")}},
		{Kind: registryv1.Kind_KIND_ADDRESS_CLAIM, Key: claim.String(), Value: ax.Claim{Addr: claim}},
		{Kind: registryv1.Kind_KIND_ENDPOINT, Key: "e1"},
	}})
	<-next
	for name, want := range map[string]zone.Kind{"web.": zone.NXDomain, "api.": zone.Success, "shop.": zone.Success} {
		if got := kind(f, name, dns.TypeA); got != want {
			t.Errorf("%s: kind %d, want %d", name, got, want)
		}
	}
	if got := kind(f, "9.0.18.198.in-addr.arpa.", dns.TypePTR); got != zone.NoData {
		t.Errorf("claimed address: kind %d", got)
	}
	f.Apply(watch.Event{Revision: 7, Changes: []watch.Change{
		{Kind: registryv1.Kind_KIND_VIRTUAL_SERVICE, Key: "shop"},
		{Kind: registryv1.Kind_KIND_ADDRESS_CLAIM, Key: claim.String()},
	}})
	if kind(f, "shop.", dns.TypeA) != zone.NXDomain || kind(f, "9.0.18.198.in-addr.arpa.", dns.TypePTR) != zone.Foreign {
		t.Error("shop or the claim is still there")
	}
	before := f.Zone()
	f.Replace(list(9, endpoint("e3", "new", "198.18.0.4:80"), endpoint("e2", "api", "198.18.0.2:80")))
	upserts, removes := f.Zone().Since(before)
	if len(upserts) != 1 || upserts[0].Name != "new" || len(removes) != 0 {
		t.Errorf("a new list changed %v and removed %v", upserts, removes)
	}
}

func TestNamesThatDNSCanNotHave(t *testing.T) {
	var log bytes.Buffer
	f := New("appswitch.local.", nil, slog.New(slog.NewTextHandler(&log, nil)))
	f.Replace(list(1, endpoint("e1", "no good", "198.18.0.1:80"), endpoint("e2", "good", "198.18.0.1:80")))
	if f.Zone().Len() != 1 || !strings.Contains(log.String(), "no good") {
		t.Errorf("%d names, log: %s", f.Zone().Len(), log.String())
	}
}
