package zone

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"appswitch.io/internal/ax"
	"github.com/miekg/dns"
)

func TestNameLivesWithItsEndpoints(t *testing.T) {
	b := NewBuilder(origin, nil)
	first, second := endpoint(t, "e1 web tcp 198.18.0.1:80 10.0.0.1:40001"), endpoint(t, "e2 web tcp 198.18.0.1:80 10.0.0.2:40001")
	kind := func() Kind { return b.Zone(1).Lookup("web.", dns.TypeA, 0).Kind }
	steps := []struct {
		do   func()
		want Kind
	}{
		{func() { _ = b.PutEndpoint(first) }, Success},
		{func() { _ = b.PutEndpoint(second) }, Success},
		{func() { b.DeleteEndpoint("e1") }, Success},
		{func() { b.DeleteEndpoint("e1") }, Success},
		{func() { b.DeleteEndpoint("e2") }, NXDomain},
		{func() {
			_ = b.PutVirtualService(ax.VirtualService{Name: "Web", Addr: netip.MustParseAddr("198.18.0.2")})
		}, Success},
		{func() { _ = b.PutEndpoint(first) }, Success},
		{func() { b.DeleteVirtualService("Web") }, Success},
		{func() { b.DeleteEndpoint("e1") }, NXDomain},
	}
	for i, s := range steps {
		s.do()
		if got := kind(); got != s.want {
			t.Errorf("step %d: kind %d, want %d", i, got, s.want)
		}
	}
	if len(b.names)+len(b.addrs)+len(b.inner)+len(b.table) != 0 {
		t.Errorf("left behind: %v %v %v", b.names, b.addrs, b.inner)
	}
}

func TestZonesAreImmutable(t *testing.T) {
	b := build(t)
	before := b.Zone(1)
	text := hostsText(before)
	for i := range 17 {
		b.DeleteEndpoint(ax.EndpointID(fmt.Sprintf("e%d", i+1)))
	}
	for _, n := range []string{"shop", "all", "lonely", "unallocated"} {
		b.DeleteVirtualService(n)
	}
	b.DeleteClaim(netip.MustParseAddr("198.18.9.9"))
	after := b.Zone(2)
	if !slices.Equal(hostsText(before), text) || before.Revision() != 1 {
		t.Error("the older zone changed")
	}
	if names := hostsText(after); len(names) != 1 { // ns.dns
		t.Errorf("names left: %v", names)
	}
	if after.reverse.len != 0 || len(b.addrs) != 0 {
		t.Errorf("addresses left: %v", b.addrs)
	}
	upserts, removes := after.Since(before)
	if len(upserts) != 0 || len(removes) != before.Len()-1 {
		t.Errorf("%d upserts, %d removes, want 0 and %d", len(upserts), len(removes), before.Len()-1)
	}
}

// TestRandomChanges compares the zone after many changes with one built from scratch from the same table, and what
// Since tells with what really differs.
func TestRandomChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := NewBuilder(origin, nil)
	endpoints, vservices, claims := map[ax.EndpointID]ax.Endpoint{}, map[string]ax.VirtualService{}, map[netip.Addr]bool{}
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, byte(r.IntN(6) + 1)}) }
	name := func() string {
		return []string{"", "a", "b", "A", "x.a", "y.x.a", "b.appswitch.local", "bad name"}[r.IntN(8)]
	}
	copied := map[string]string{} // what a follower of Since knows
	zone := b.Zone(0)
	for step := range 5000 {
		for range r.IntN(4) {
			switch r.IntN(6) {
			case 0, 1:
				e := ax.Endpoint{ID: ax.EndpointID(fmt.Sprint(r.IntN(20))), Name: name(), Proto: ax.Protocol(r.IntN(2) + 1), Stale: r.IntN(3) == 0,
					Service: netip.AddrPortFrom(addr(), uint16(r.IntN(2)+80)), Host: netip.AddrPortFrom(addr(), 40000)}
				endpoints[e.ID] = e
				_ = b.PutEndpoint(e)
			case 2:
				id := ax.EndpointID(fmt.Sprint(r.IntN(20)))
				delete(endpoints, id)
				b.DeleteEndpoint(id)
			case 3:
				v := ax.VirtualService{Name: name(), Addr: addr(), Backends: []ax.Backend{{Addr: addr(), Weight: 1}, {Addr: addr(), Port: uint16(r.IntN(2)) * 80, Weight: 1}}}
				if r.IntN(2) == 0 {
					v.Ports = []ax.PortMapping{{Virtual: 8080, Backend: 80}}
				}
				vservices[v.Name] = v
				_ = b.PutVirtualService(v)
			case 4:
				n := name()
				delete(vservices, n)
				b.DeleteVirtualService(n)
			case 5:
				a := addr()
				if claims[a] = r.IntN(2) == 0; claims[a] {
					b.PutClaim(a)
				} else {
					b.DeleteClaim(a)
				}
			}
		}
		next := b.Zone(ax.Revision(step))
		fresh := NewBuilder(origin, nil)
		for _, e := range endpoints {
			_ = fresh.PutEndpoint(e)
		}
		for _, v := range vservices {
			_ = fresh.PutVirtualService(v)
		}
		for a, claimed := range claims {
			if claimed {
				fresh.PutClaim(a)
			}
		}
		want := fresh.Zone(ax.Revision(step))
		if !slices.Equal(hostsText(next), hostsText(want)) {
			t.Fatalf("step %d: %v\nwant %v", step, hostsText(next), hostsText(want))
		}
		if got, want := reverseText(next), reverseText(want); !slices.Equal(got, want) {
			t.Fatalf("step %d: reverse %v\nwant %v", step, got, want)
		}
		if got, want := innerText(next), innerText(want); !slices.Equal(got, want) {
			t.Fatalf("step %d: inner %v\nwant %v", step, got, want)
		}
		upserts, removes := next.Since(zone)
		for _, h := range upserts {
			copied[h.Name] = fmt.Sprint(h.Name, h.Addrs, h.Services)
		}
		for _, n := range removes {
			delete(copied, n)
		}
		var follower []string
		for _, text := range copied {
			follower = append(follower, text)
		}
		slices.Sort(follower)
		if !slices.Equal(follower, hostsText(next)) {
			t.Fatalf("step %d: follower has %v\nwant %v", step, follower, hostsText(next))
		}
		zone = next
	}
}

func reverseText(z *Zone) []string {
	var out []string
	for a, names := range z.reverse.all() {
		out = append(out, fmt.Sprint(a, names))
	}
	slices.Sort(out)
	return out
}

func innerText(z *Zone) []string {
	var out []string
	for n := range z.inner.all() {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func TestRetain(t *testing.T) {
	b := build(t)
	b.Zone(1)
	b.Retain(
		func(id ax.EndpointID) bool { return id == "e4" },
		func(name string) bool { return name == "shop" },
		func(netip.Addr) bool { return false },
	)
	z := b.Zone(2)
	if z.Len() != 3 { // two, shop, ns.dns
		t.Errorf("names: %v", hostsText(z))
	}
}

func big(b *testing.B, n int) *Builder {
	z := NewBuilder(origin, nil)
	for i := range n {
		if err := z.PutEndpoint(endpoint(b, fmt.Sprintf("e%d name%d tcp 198.%d.%d.%d:80 10.0.0.1:40000", i, i, 18+i>>16, i>>8&255, i&255))); err != nil {
			b.Fatal(err)
		}
	}
	z.Zone(1)
	return z
}

func BenchmarkChangeIn50000(b *testing.B) {
	z := big(b, 50_000)
	e := endpoint(b, "x changing tcp 198.19.255.255:80 10.0.0.1:40000")
	b.ReportAllocs()
	for b.Loop() {
		_ = z.PutEndpoint(e)
		z.Zone(2)
		z.DeleteEndpoint("x")
		z.Zone(3)
	}
}

func BenchmarkLookup(b *testing.B) {
	z := big(b, 50_000).Zone(2)
	b.ReportAllocs()
	for b.Loop() {
		if z.Lookup("name77.appswitch.local.", dns.TypeA, 3).Kind != Success {
			b.Fatal("not found")
		}
	}
}
