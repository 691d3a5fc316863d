package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/registry/internal/store"
	"appswitch.io/services/registry/internal/store/memstore"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

func (h *harness) claimed(t *testing.T, name, ip string) *typev1.AddressClaim {
	t.Helper()
	resp, err := h.ClaimAddress(soon(t), &registryv1.ClaimAddressRequest{Name: name, Ip: ip})
	if err != nil {
		t.Fatalf("claim %q %q: %v", name, ip, err)
	}
	return resp.GetClaim()
}

func TestClaims(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		made := h.claimed(t, "web", "")
		if !made.GetAllocated() || made.GetName() != "web" || !netip.MustParsePrefix("198.18.0.0/15").Contains(netip.MustParseAddr(made.GetIp())) {
			t.Errorf("claim of a name: %v", made)
		}
		for _, name := range []string{"web", "WEB"} {
			if again := h.claimed(t, name, ""); again.GetIp() != made.GetIp() {
				t.Errorf("claim of %s again: %v, was %v", name, again, made)
			}
		}
		if other := h.claimed(t, "db", ""); other.GetIp() == made.GetIp() {
			t.Errorf("two names have %v", other)
		}

		plain := h.claimed(t, "", "::ffff:1.1.1.1")
		if plain.GetIp() != "1.1.1.1" || plain.GetAllocated() || plain.GetName() != "" {
			t.Errorf("claim of an address: %v", plain)
		}
		if again := h.claimed(t, "", "1.1.1.1"); again.GetIp() != "1.1.1.1" {
			t.Errorf("claim of an address again: %v", again)
		}
		if named := h.claimed(t, "front", "1.1.1.1"); named.GetName() != "front" {
			t.Errorf("name for an address that had none: %v", named)
		}
		if found := h.claimed(t, "front", ""); found.GetIp() != "1.1.1.1" || found.GetAllocated() {
			t.Errorf("claim of the name of an address: %v", found)
		}
		if second := h.claimed(t, "alias", "1.1.1.1"); second.GetName() != "front" {
			t.Errorf("a claim that stands was changed: %v", second)
		}
		if elsewhere := h.claimed(t, "front", "2.2.2.2"); elsewhere.GetIp() != "2.2.2.2" {
			t.Errorf("second address of a name: %v", elsewhere)
		}
		if found := h.claimed(t, "front", ""); found.GetIp() != "1.1.1.1" {
			t.Errorf("the name has moved: %v", found)
		}
		six := h.claimed(t, "", "2001:DB8::1")
		if six.GetIp() != "2001:db8::1" {
			t.Errorf("claim of an IPv6 address: %v", six)
		}
	})
}

func TestClaimRefuses(t *testing.T) {
	h := serve(t, memory(t))
	h.grant(t, node("n1", "10.0.0.1"), 10*time.Second)
	eventually(t, "the node is in the copy", func() bool { return h.srv.table.has(recordID{registryv1.Kind_KIND_NODE, "n1"}) })
	for _, c := range [][2]string{
		{"", ""}, {"a b", ""}, {"<uuid>", ""}, {"", "1.1.1"}, {"", "0.0.0.0"}, {"", "127.1.2.3"}, {"", "::1"}, {"", "224.0.0.1"},
		{"", "255.255.255.255"}, {"", "169.254.1.1"}, {"", "fe80::1%eth0"}, {"", "fe80::1"}, {"", "::"}, {"", "ff02::1"}, {"", "10.0.0.1"}, {"web", "10.0.0.1"},
	} {
		_, err := h.ClaimAddress(soon(t), &registryv1.ClaimAddressRequest{Name: c[0], Ip: c[1]})
		if err == nil {
			t.Errorf("claim %q was granted", c)
			continue
		}
		wantCode(t, err, codes.InvalidArgument)
	}
}

// Two registries in front of one store, a pool with hardly any room, everyone at once.
func TestConcurrentClaims(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		small := func(c *Config) { c.Pool = netip.MustParsePrefix("10.99.0.0/26") } // 62 addresses
		registries := []*harness{serve(t, st, small), serve(t, st, small)}
		for _, h := range registries {
			h.watch(t, &registryv1.WatchRequest{}).list(t)
		}
		const n = 60
		var (
			mu   sync.Mutex
			have = map[string]map[string]bool{} // name to addresses
			wg   sync.WaitGroup
		)
		for i := range 3 * n {
			wg.Go(func() {
				name := fmt.Sprint("name", i%n)
				resp, err := registries[rand.IntN(2)].ClaimAddress(context.Background(), &registryv1.ClaimAddressRequest{Name: name})
				if err != nil {
					t.Errorf("claim: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if have[name] == nil {
					have[name] = map[string]bool{}
				}
				have[name][resp.GetClaim().GetIp()] = true
			})
		}
		wg.Wait()
		owner := map[string]string{}
		for name, ips := range have {
			for ip := range ips {
				if len(ips) != 1 || owner[ip] != "" {
					t.Errorf("%s has %v; %s belongs to %q already", name, ips, ip, owner[ip])
				}
				owner[ip] = name
			}
		}
		h := registries[0]
		for i := range 2 {
			h.claimed(t, fmt.Sprint("last", i), "")
		}
		eventually(t, "the copy knows all claims", func() bool {
			return len(h.srv.claims()) == 62
		})
		_, err := h.ClaimAddress(soon(t), &registryv1.ClaimAddressRequest{Name: "toomany"})
		wantCode(t, err, codes.ResourceExhausted)
	})
}

// In simulated time, without gRPC: an unheld claim ends, a held one does not, one that is taken up again starts over.
func TestClaimsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		s, err := New(Config{
			Store: st, Pool: netip.MustParsePrefix("198.18.0.0/15"), ClaimTTL: time.Hour, LeaseTTL: 10 * time.Second,
			Log: logger(t), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		run(t, st.Run)
		run(t, s.Run)
		ctx := context.Background()
		claim := func(name, ip string) *typev1.AddressClaim {
			t.Helper()
			resp, err := s.ClaimAddress(ctx, &registryv1.ClaimAddressRequest{Name: name, Ip: ip})
			if err != nil {
				t.Fatal(err)
			}
			return resp.GetClaim()
		}
		write := func(what ...any) {
			t.Helper()
			if _, err := s.Write(ctx, &registryv1.WriteRequest{Changes: changesOf(what...)}); err != nil {
				t.Fatal(err)
			}
		}
		claims := func() []string {
			synctest.Wait()
			records, _, err := s.list(ctx, setOf(registryv1.Kind_KIND_ADDRESS_CLAIM))
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, r := range records {
				text := r.id.key
				if r.p.GetAddressClaim().GetExpireTime() != nil {
					text += " ends"
				}
				out = append(out, text)
			}
			return out
		}
		want := func(when string, want ...string) {
			t.Helper()
			if got := claims(); !slices.Equal(got, want) {
				t.Errorf("%s: claims %q, want %q", when, got, want)
			}
		}
		made := claim("web", "").GetIp()
		claim("", "1.1.1.1")
		claim("", "2.2.2.2")
		write(node("n1", "10.0.0.1"), app("a0000001", "n1", "1.1.1.1"), app("a0000002", "n1", "3.3.3.3"), app("a0000003", "n1", "10.0.0.1"),
			app("a0000004", "unknown", "5.5.5.5"), ax.VirtualService{Name: "vs", Addr: netip.MustParseAddr("4.4.4.4")})
		want("at first", "1.1.1.1", made, "2.2.2.2", "4.4.4.4")
		time.Sleep(time.Minute)
		want("after a sweep", "1.1.1.1", made+" ends", "2.2.2.2 ends", "3.3.3.3", "4.4.4.4")
		time.Sleep(50 * time.Minute)
		if c := claim("", "2.2.2.2"); c.GetExpireTime() != nil {
			t.Errorf("a claim taken up again ends: %v", c)
		}
		time.Sleep(20 * time.Minute)
		want("after its time", "1.1.1.1", "2.2.2.2 ends", "3.3.3.3", "4.4.4.4")
		if again := claim("web", ""); again.GetIp() != made {
			t.Errorf("the name got %s, and %s had become free", again.GetIp(), made)
		}
		write(app("a0000009", "n1", "2.2.2.2"), axpb.Delete(registryv1.Kind_KIND_APP, "a0000001"))
		time.Sleep(time.Minute)
		want("held again", "1.1.1.1 ends", made+" ends", "2.2.2.2", "3.3.3.3", "4.4.4.4")
		if _, err := s.DeleteVirtualService(ctx, &registryv1.DeleteVirtualServiceRequest{Name: "vs"}); err != nil {
			t.Fatal(err)
		}
		want("without the virtual service", "1.1.1.1 ends", made+" ends", "2.2.2.2", "3.3.3.3")
		time.Sleep(2 * time.Hour)
		want("in the end", "2.2.2.2", "3.3.3.3")
		if kvs, _, err := st.List(ctx, namesDir); err != nil || len(kvs) != 0 {
			t.Errorf("names left: %v, error %v", kvs, err)
		}
	})
}

func TestPool(t *testing.T) {
	for _, c := range []struct{ prefix, first, last string }{
		{"198.18.0.0/15", "198.18.0.1", "198.19.255.254"},
		{"10.1.2.77/30", "10.1.2.77", "10.1.2.78"},
		{"fd00::/8", "fd00::1", "fd00::ff:fffe"},
	} {
		p, err := newPool(netip.MustParsePrefix(c.prefix))
		if err != nil {
			t.Fatal(err)
		}
		if first, last := p.at(0), p.at(p.size-1); first.String() != c.first || last.String() != c.last || p.at(p.size) != first {
			t.Errorf("pool %s: %s to %s, want %s to %s", c.prefix, first, last, c.first, c.last)
		}
		for i := range 1000 {
			if f := p.first(fmt.Sprint(i)); f >= p.size {
				t.Fatalf("pool %s: start %d of %d", c.prefix, f, p.size)
			}
		}
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.0/31"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4")} {
		if _, err := newPool(bad); err == nil {
			t.Errorf("pool %s was accepted", bad)
		}
	}
}
