package publish

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appswitch.io/internal/ax"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// settle is longer than any wait between the return of the registry and everything being published.
const settle = 2 * MaxBackoff

func TestLeaseIsKept(t *testing.T) {
	bubble(t, Config{TTL: MinTTL}, func(g *rig) {
		g.PutEndpoint(endpoint(1))
		g.start()
		time.Sleep(10 * time.Minute)
		g.expect("e1")
		g.expectStats(Stats{LeaseAlive: true})
		if g.registry.grants != 1 {
			t.Errorf("%d leases, want 1", g.registry.grants)
		}
	})
}

func TestLeaseExpires(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.PutApp(app(1))
		g.PutEndpoint(endpoint(1))
		g.PutEndpoint(endpoint(2))
		g.start()
		g.DropEndpoint("e2")
		g.expect("a1 e1")
		g.registry.expire(g.registry.current)
		g.expect("")
		time.Sleep(DefaultTTL/3 + settle)
		g.expect("a1 e1")
		g.expectStats(Stats{LeaseAlive: true})
		if g.registry.grants != 2 {
			t.Errorf("%d leases, want 2", g.registry.grants)
		}
		for key, s := range g.registry.records {
			if s.lease != g.registry.current {
				t.Errorf("%s lives under lease %d, want %d", key, s.lease, g.registry.current)
			}
		}
	})
}

// TestLeaseExpiresAtAWrite notices the loss when it writes, not at the next renewal.
func TestLeaseExpiresAtAWrite(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.PutEndpoint(endpoint(1))
		g.start()
		g.registry.expire(g.registry.current)
		g.PutEndpoint(endpoint(2))
		time.Sleep(2 * MinBackoff)
		g.expect("e1 e2")
	})
}

func TestRegistryGoesAwayAndReturns(t *testing.T) {
	for _, away := range []time.Duration{100 * time.Millisecond, 5 * time.Second, time.Minute} {
		bubble(t, Config{}, func(g *rig) {
			g.PutEndpoint(endpoint(1))
			g.PutEndpoint(endpoint(2))
			g.start()
			g.server.Leave()
			synctest.Wait() // a transaction under way would cost the lease
			g.PutEndpoint(endpoint(3))
			g.DropEndpoint("e2")
			time.Sleep(away)
			g.expectStats(Stats{LeaseAlive: away < DefaultTTL, Pending: 2})
			g.server.Return()
			time.Sleep(settle)
			g.expect("e1 e3")
			g.expectStats(Stats{LeaseAlive: true})
			if n := strings.Count(g.log.String(), "level=WARN"); n < 1 || n > 2 {
				t.Errorf("away for %s: %d warnings: %s", away, n, g.log)
			}
			if kept := g.registry.grants == 1; kept != (away < DefaultTTL) {
				t.Errorf("away for %s: %d leases", away, g.registry.grants)
			}
		})
	}
}

func TestStartsBeforeTheRegistry(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.server.Leave()
		g.PutEndpoint(endpoint(1))
		g.start()
		time.Sleep(time.Hour)
		g.expectStats(Stats{Pending: 1})
		g.server.Return()
		time.Sleep(settle)
		g.expect("e1")
	})
}

// TestRegistryIsSilent has a registry that takes calls and does not answer.
func TestRegistryIsSilent(t *testing.T) {
	for _, method := range []string{"GrantLease", "KeepLease", "Write"} {
		bubble(t, Config{}, func(g *rig) {
			g.PutEndpoint(endpoint(1))
			silent := func(ctx context.Context, m string) error {
				if m != method {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
			g.registry.set(func(r *registry) { r.before = silent })
			g.start()
			time.Sleep(time.Minute)
			g.registry.set(func(r *registry) { r.before = nil })
			time.Sleep(GrantTimeout + settle)
			g.expect("e1")
			g.expectStats(Stats{LeaseAlive: true})
		})
	}
}

// TestARenewalIsAskedElsewhereInTime: two registries that hang, one after the other, leave the lease alive if the third answers.
func TestARenewalIsAskedElsewhereInTime(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.PutEndpoint(endpoint(1))
		g.start()
		g.expect("e1")
		hang := 0
		g.registry.set(func(r *registry) {
			r.before = func(ctx context.Context, method string) error {
				r.mu.Lock()
				hangs := method == "KeepLease" && hang < 2
				if hangs {
					hang++
				}
				r.mu.Unlock()
				if hangs {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
		})
		time.Sleep(time.Minute)
		g.expect("e1")
		g.expectStats(Stats{LeaseAlive: true})
		if hang != 2 || g.registry.grants != 1 {
			t.Errorf("%d renewals hung and %d leases were granted, want 2 and 1", hang, g.registry.grants)
		}
	})
}

// TestUnknownOutcome loses the answer to a transaction. Whether it took place or not, a new lease follows, so that the
// transaction can't take place later.
func TestUnknownOutcome(t *testing.T) {
	lost := status.Error(codes.Unavailable, "lost")
	for name, hook := range map[string]func(*registry){
		"not written": func(r *registry) {
			r.before = func(_ context.Context, method string) error {
				if method != "Write" {
					return nil
				}
				r.set(func(r *registry) { r.before = nil })
				return lost
			}
		},
		"written": func(r *registry) {
			r.after = func() error {
				r.after = nil
				return lost
			}
		},
	} {
		bubble(t, Config{}, func(g *rig) {
			g.PutEndpoint(endpoint(1))
			g.start()
			g.registry.set(hook)
			g.PutEndpoint(endpoint(2))
			synctest.Wait()
			g.DropEndpoint("e2")
			g.DropEndpoint("e1")
			g.PutEndpoint(endpoint(3))
			time.Sleep(settle)
			g.expect("e3")
			g.expectStats(Stats{LeaseAlive: true})
			if g.registry.grants != 2 {
				t.Errorf("%s: %d leases, want 2", name, g.registry.grants)
			}
		})
	}
}

// TestWriteIsCutOff ends the session while a transaction is under way.
func TestWriteIsCutOff(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.start()
		g.registry.set(func(r *registry) {
			r.before = func(ctx context.Context, method string) error {
				if method == "Write" {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
		})
		g.PutEndpoint(endpoint(1))
		g.expectStats(Stats{LeaseAlive: true, Pending: 1})
		g.server.Leave()
		g.registry.set(func(r *registry) { r.before = nil })
		g.server.Return()
		time.Sleep(settle)
		g.expect("e1")
		g.expectStats(Stats{LeaseAlive: true})
		if g.registry.grants != 2 {
			t.Errorf("%d leases, want 2", g.registry.grants)
		}
	})
}

// TestChaos puts and drops at random while the registry fails in every way, and compares the table in the end.
func TestChaos(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, Config{TTL: MinTTL}, func(g *rig) {
			rnd, faults := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)) // the registry's lock guards faults
			fail := func() error {
				if faults.IntN(5) > 0 {
					return nil
				}
				return status.Error([]codes.Code{
					codes.Unavailable, codes.Aborted, codes.FailedPrecondition, codes.Internal, codes.InvalidArgument, codes.DeadlineExceeded,
				}[faults.IntN(6)], "chaos")
			}
			g.registry.before = func(_ context.Context, method string) error {
				g.registry.mu.Lock()
				defer g.registry.mu.Unlock()
				err := fail()
				if method == "Write" && status.Code(err) == codes.InvalidArgument {
					return nil // that is final
				}
				return err
			}
			g.registry.after = func() error {
				if err := fail(); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.Aborted {
					return err
				}
				return nil
			}
			g.Restored()
			g.start()
			want := map[string]bool{}
			for range 400 {
				n := rnd.IntN(30)
				id := fmt.Sprintf("e%d", n)
				if rnd.IntN(2) == 0 {
					g.PutEndpoint(endpoint(n))
					want[id] = true
				} else {
					g.DropEndpoint(endpoint(n).ID)
					delete(want, id)
				}
				switch rnd.IntN(40) {
				case 0:
					g.server.Leave()
					time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
					g.server.Return()
				case 1:
					g.registry.expire(g.registry.current)
				case 2, 3, 4, 5:
					time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
				}
			}
			g.registry.set(func(r *registry) { r.before, r.after = nil, nil })
			time.Sleep(DefaultTTL + 10*time.Second)
			g.expect(strings.Join(slices.Sorted(maps.Keys(want)), " "))
			g.expectStats(Stats{LeaseAlive: true})
			if len(g.sent) != len(want) || len(g.queued) != 0 {
				t.Errorf("seed %d: %d remembered for %d records, %d queued", seed, len(g.sent), len(want), len(g.queued))
			}
		})
	}
}

func TestExit(t *testing.T) {
	for _, keep := range []bool{false, true} {
		bubble(t, Config{KeepOnExit: keep}, func(g *rig) {
			g.PutEndpoint(endpoint(1))
			g.start()
			start := time.Now()
			g.stop()
			if d := time.Since(start); d != 0 {
				t.Errorf("the end took %s", d)
			}
			if revoked := g.registry.revokes == 1; revoked == keep {
				t.Errorf("keep %v: %d leases revoked", keep, g.registry.revokes)
			}
			g.expect(map[bool]string{true: "e1", false: ""}[keep])
			time.Sleep(DefaultTTL + 1)
			g.expect("") // nobody came back
			g.expectStats(Stats{})
		})
	}
}

func TestExitIsBounded(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.PutEndpoint(endpoint(1))
		g.start()
		g.registry.set(func(r *registry) {
			r.before = func(ctx context.Context, _ string) error {
				<-ctx.Done()
				return ctx.Err()
			}
		})
		g.PutEndpoint(endpoint(2)) // a transaction is under way
		synctest.Wait()
		start := time.Now()
		g.stop()
		if d := time.Since(start); d != RevokeTimeout {
			t.Errorf("the end took %s, want %s", d, RevokeTimeout)
		}
		if !strings.Contains(g.log.String(), "will expire") {
			t.Errorf("log: %s", g.log)
		}
	})
}

func TestRelabel(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		g.start()
		if err := g.Relabel(ax.Labels{"rack": "a1"}); err != nil {
			t.Fatal(err)
		}
		g.expect("n1")
		stored := func() ax.Labels {
			return g.registry.records["n1"].put.GetPut().GetNode().GetLabels()
		}
		if got := stored(); got["rack"] != "a1" || g.Node().Labels["rack"] != "a1" {
			t.Errorf("labels %v, %v", got, g.Node().Labels)
		}
		g.registry.expire(g.registry.current)
		time.Sleep(DefaultTTL/3 + settle)
		g.expect("n1")
		if err := g.Relabel(ax.Labels{"": "a1"}); err == nil {
			t.Error("a bad label was taken")
		}
		if got := stored(); got["rack"] != "a1" {
			t.Errorf("labels %v under the new lease", got)
		}
	})
}
