package publish

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/axpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// leave puts records into the table that an earlier run and another node have left there.
func (g *rig) leave() {
	foreign, namesake := endpoint(8), endpoint(9)
	foreign.Node, namesake.Cluster = "n2", "other"
	for key, value := range map[string]any{"a1": app(1), "a2": app(2), "e1": endpoint(1), "e2": endpoint(2), "e8": foreign, "e9": namesake} {
		g.registry.records[key] = stored{1, axpb.Put(value)}
	}
}

func TestLeftoversAreDeleted(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.leave()
		g.start()
		time.Sleep(time.Minute)
		g.expect("a1 a2 e1 e2 e8 e9") // an agent that is still restoring deletes nothing
		g.PutApp(app(1))
		g.PutEndpoint(endpoint(1))
		g.PutEndpoint(endpoint(3))
		synctest.Wait()
		g.registry.transactions()
		g.Restored()
		g.expect("a1 e1 e3 e8 e9")
		for _, txn := range g.registry.transactions() {
			if strings.Contains(txn, "-a1") || strings.Contains(txn, "-e1") || strings.Contains(txn, "-e8") || strings.Contains(txn, "-e9") {
				t.Errorf("transaction %q deletes what is to stay", txn)
			}
		}
		g.DropEndpoint("e1")
		g.expect("a1 e3 e8 e9")
	})
}

func TestLeftoversOfARestoredAgent(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.leave()
		g.PutEndpoint(endpoint(1))
		g.Restored()
		g.start()
		g.expect("e1 e8 e9")
	})
}

func TestTableCantBeListed(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.leave()
		g.registry.before = func(_ context.Context, method string) error {
			if method == "Watch" {
				return status.Error(codes.ResourceExhausted, "too many watchers")
			}
			return nil
		}
		g.Restored()
		g.PutEndpoint(endpoint(3))
		g.start()
		g.expect("a1 a2 e1 e2 e3 e8 e9") // published all the same
		time.Sleep(time.Minute)
		g.registry.set(func(r *registry) { r.before = nil })
		time.Sleep(sweepRetry)
		g.expect("e3 e8 e9")
		if g.registry.grants != 1 {
			t.Errorf("%d leases, want 1", g.registry.grants)
		}
	})
}

func TestClaim(t *testing.T) {
	bubble(t, Config{}, func(g *rig) { // without Run
		for _, c := range []struct {
			name string
			ip   netip.Addr
			want string
		}{
			{"web", netip.Addr{}, "198.18.0.1"},
			{"web", netip.MustParseAddr("1.1.1.1"), "1.1.1.1"},
			{"", netip.MustParseAddr("::ffff:1.1.1.1"), "1.1.1.1"},
			{"", netip.MustParseAddr("2001:db8::1"), "2001:db8::1"},
		} {
			if got, err := g.Claim(g.t.Context(), c.name, c.ip); err != nil || got.String() != c.want {
				t.Errorf("Claim(%q, %s) = %s, %v; want %s", c.name, c.ip, got, err, c.want)
			}
		}
	})
}

func TestClaimFails(t *testing.T) {
	for _, c := range []struct {
		err         error
		unavailable bool
		says        string
	}{
		{status.Error(codes.Unavailable, "no etcd"), true, "no etcd"},
		{status.Error(codes.Aborted, "others were faster"), true, "others were faster"},
		{status.Error(codes.AlreadyExists, `name "web" has address 2.2.2.2`), false, "has address 2.2.2.2"},
		{status.Error(codes.InvalidArgument, "ip: loopback"), false, "ip: loopback"},
	} {
		bubble(t, Config{}, func(g *rig) {
			g.registry.before = func(context.Context, string) error { return c.err }
			_, err := g.Claim(g.t.Context(), "web", netip.Addr{})
			if errors.Is(err, ErrUnavailable) != c.unavailable || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), `"web"`) {
				t.Errorf("%v: Claim fails with %v", c.err, err)
			}
		})
	}
	bubble(t, Config{}, func(g *rig) {
		g.server.Leave()
		if _, err := g.Claim(g.t.Context(), "web", netip.Addr{}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("registry away: %v", err)
		}
		g.server.Return()
		g.registry.before = func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		time.Sleep(settle)
		start := time.Now()
		if _, err := g.Claim(g.t.Context(), "web", netip.Addr{}); !errors.Is(err, ErrUnavailable) || time.Since(start) != ClaimTimeout {
			t.Errorf("registry silent: %v after %s", err, time.Since(start))
		}
	})
}
