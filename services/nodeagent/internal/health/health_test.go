package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTally(t *testing.T) {
	const bad = "x"
	for _, c := range []struct {
		failures, successes int
		results             string
		want                string // states: - unknown, H healthy, u unhealthy
	}{
		{3, 2, "o", "H"},
		{3, 2, "x", "u"}, // the first one decides
		{3, 2, "oxxox", "HHHHH"},
		{3, 2, "oxxx", "HHHu"},
		{3, 2, "oxxxoxo", "HHHuuuu"},
		{3, 2, "oxxxoo", "HHHuuH"},
		{1, 1, "oxox", "HuHu"},
		{2, 1, "xoxx", "uHHu"},
	} {
		state := tally{check: ax.HealthCheck{Failures: c.failures, Successes: c.successes}}
		got, last := "", state.now
		for _, r := range c.results {
			var err error
			if string(r) == bad {
				err = refusal("HTTP 503")
			}
			h, changed := state.note(err)
			if changed != (h.State != last.State) {
				t.Errorf("%s: change reported: %v, from %v to %v", c.results, changed, last, h)
			}
			last = h
			got += map[ax.HealthState]string{ax.Unchecked: "-", ax.Healthy: "H", ax.Unhealthy: "u"}[h.State]
		}
		if got != c.want {
			t.Errorf("after %s with %d and %d: %s, want %s", c.results, c.failures, c.successes, got, c.want)
		}
	}
}

// change is what a checker told.
type change struct {
	id ax.EndpointID
	ax.Health
}

func newChecker(t *testing.T) (*Checker, *socktab.Table, chan change) {
	t.Helper()
	changes := make(chan change, 16)
	table := socktab.New(nil, slog.New(slog.DiscardHandler))
	c, err := New(Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Table: table,
		Changed: func(id ax.EndpointID, h ax.Health) { changes <- change{id, h} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, table, changes
}

func target(l net.Addr, check string) Target {
	hc, err := ax.ParseHealthCheck(check)
	if err != nil {
		panic(err)
	}
	hc.Interval, hc.Timeout, hc.Failures = ax.MinCheckInterval, ax.MinCheckInterval, 2
	return Target{ID: ax.EndpointID(check), Check: hc, Service: netip.MustParseAddrPort("1.1.1.1:80"), Host: netip.MustParseAddrPort(l.String())}
}

func expect(t *testing.T, changes chan change, want string) {
	t.Helper()
	select {
	case got := <-changes:
		text := fmt.Sprintf("%s %d %s", got.id, got.State, got.Reason)
		if !strings.HasPrefix(text, want) {
			t.Errorf("got %q, want %q", text, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no change, want %q", want)
	}
}

func TestHTTP(t *testing.T) {
	c, table, changes := newChecker(t)
	var status atomic.Int32
	status.Store(http.StatusFound)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := netip.MustParseAddrPort(r.RemoteAddr)
		server := netip.MustParseAddrPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		peer, admission, _ := table.Admit(client, server, 0, time.Now(), nil)
		if admission != socktab.Known || peer.Remote != client || peer.Local.String() != "1.1.1.1:80" || r.Host != "1.1.1.1:80" || r.URL.Path != "/healthz" {
			t.Errorf("%s %s: admission %v as %+v", r.Host, r.URL, admission, peer)
		}
		stranger := netip.AddrPortFrom(client.Addr(), client.Port()^1)
		if _, admission, _ := table.Admit(stranger, server, 0, time.Now(), nil); admission == socktab.Known {
			t.Error("a stranger is let in with the check")
		}
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(int(status.Load()))
	}))
	defer s.Close()
	c.Watch(target(s.Listener.Addr(), "http:/healthz"))
	expect(t, changes, "http:/healthz 1 ")
	status.Store(http.StatusServiceUnavailable)
	expect(t, changes, "http:/healthz 2 HTTP 503")
	status.Store(http.StatusOK)
	expect(t, changes, "http:/healthz 1 ")
	c.Forget("http:/healthz")
	status.Store(http.StatusNotFound)
	time.Sleep(3 * ax.MinCheckInterval)
	if len(changes) > 0 {
		t.Errorf("checked though it was forgotten: %+v", <-changes)
	}
}

func TestTCP(t *testing.T) {
	c, _, changes := newChecker(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Watch(target(l.Addr(), "tcp"))
	expect(t, changes, "tcp 1 ")
	_ = l.Close()
	expect(t, changes, "tcp 2 connection refused")
}

func TestSilence(t *testing.T) {
	c, _, changes := newChecker(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.Watch(target(l.Addr(), "http:/"))
	expect(t, changes, "http:/ 2 no answer in time")
	c.Forget("http:/")
	c.Watch(target(l.Addr(), "grpc"))
	expect(t, changes, "grpc 2 no answer in time")
}

func TestGRPC(t *testing.T) {
	c, _, changes := newChecker(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	status := grpchealth.NewServer()
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, status)
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	status.SetServingStatus("echo", healthv1.HealthCheckResponse_SERVING)
	c.Watch(target(l.Addr(), "grpc:echo"))
	expect(t, changes, "grpc:echo 1 ")
	status.SetServingStatus("echo", healthv1.HealthCheckResponse_NOT_SERVING)
	expect(t, changes, "grpc:echo 2 gRPC NOT_SERVING")
	status.SetServingStatus("echo", healthv1.HealthCheckResponse_SERVING)
	expect(t, changes, "grpc:echo 1 ")
	c.Watch(target(l.Addr(), "grpc:nosuch"))
	expect(t, changes, "grpc:nosuch 2 gRPC NotFound")
	c.Forget("grpc:nosuch")
	s.Stop()
	expect(t, changes, "grpc:echo 2 connection refused")
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		t.Error(err)
	}
}

func TestTargetsAreBounded(t *testing.T) {
	c, err := New(Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range MaxTargets + 5 { // nothing runs before Run
		c.Watch(Target{ID: ax.EndpointID(fmt.Sprint(i))})
	}
	if len(c.targets) != MaxTargets {
		t.Errorf("%d targets, at most %d", len(c.targets), MaxTargets)
	}
}
