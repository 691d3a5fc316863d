package rpc

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestRestartedServerIsFoundWithinASecond(t *testing.T) {
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{})
	c := gatewayAt(t, s.addr, ClientConfig{})
	if err := list(t, c); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	away := time.Now()
	for time.Since(away) < 6*time.Second { // unbounded, the backoff would have grown to 3 s by then
		before := time.Now()
		if err := list(t, c); status.Code(err) != codes.Unavailable {
			t.Fatalf("while it is away: %v, want Unavailable", err)
		}
		if d := time.Since(before); d > time.Second {
			t.Fatalf("a call to a server that is away took %v", d)
		}
		time.Sleep(50 * time.Millisecond)
	}
	start(t, ServerConfig{}, s.addr, doors{}, table{})
	back := time.Now()
	for {
		if err := list(t, c); err == nil {
			break
		}
		if time.Since(back) > 1500*time.Millisecond {
			t.Fatal("not found 1.5 s after its return")
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("found after %v", time.Since(back))
}

func TestSeveralAddressesTakeTurns(t *testing.T) {
	counts := [2]int{}
	one := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(context.Context) error { counts[0]++; return nil }}, table{})
	two := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(context.Context) error { counts[1]++; return nil }}, table{})
	c := gatewayAt(t, one.addr+", "+two.addr, ClientConfig{})
	for until := time.Now().Add(5 * time.Second); (counts[0] < 5 || counts[1] < 5) && time.Now().Before(until); {
		if err := list(t, c); err != nil {
			t.Fatal(err)
		}
	}
	if counts[0] < 5 || counts[1] < 5 {
		t.Fatalf("calls per address: %v", counts)
	}
	if err := two.stop(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := list(t, c); err != nil {
			t.Fatalf("with one of two left: %v", err)
		}
	}
}

// TestAServerThatIsNotReadyIsPassedOver: with two addresses its calls go to the other one; as the only one it is asked.
func TestAServerThatIsNotReadyIsPassedOver(t *testing.T) {
	var counts [2]atomic.Int32
	var ready atomic.Bool
	count := func(i int) doors {
		return doors{list: func(context.Context) error { counts[i].Add(1); return nil }}
	}
	one := start(t, ServerConfig{}, "127.0.0.1:0", count(0), table{})
	two := start(t, ServerConfig{Ready: ready.Load}, "127.0.0.1:0", count(1), table{})
	if err := list(t, gatewayAt(t, two.addr, ClientConfig{})); err != nil || counts[1].Swap(0) != 1 {
		t.Errorf("as the only address: %v", err)
	}
	c := gatewayAt(t, one.addr+","+two.addr, ClientConfig{})
	for range 50 { // connections come up one after the other
		if err := list(t, c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if n := counts[1].Load(); n != 0 {
		t.Errorf("%d calls went to the server that is not ready", n)
	}
	ready.Store(true)
	for until := time.Now().Add(5 * time.Second); counts[1].Load() == 0 && time.Now().Before(until); {
		if err := list(t, c); err != nil {
			t.Fatal(err)
		}
	}
	if counts[1].Load() == 0 {
		t.Error("no call went to the server after it was ready")
	}
	if err := one.stop(); err != nil {
		t.Error(err)
	}
}

// TestAServerThatHangsIsPassedOver: one call waits for it in vain, and the others go to the server that answers.
func TestAServerThatHangsIsPassedOver(t *testing.T) {
	var hung atomic.Int32
	release := make(chan struct{})
	one := start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{})
	two := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(ctx context.Context) error {
		hung.Add(1)
		<-release // not even the caller's end wakes it
		return ctx.Err()
	}}, table{})
	c := gatewayAt(t, one.addr+","+two.addr, ClientConfig{})
	failed := 0
	for i := 0; i < 40 || hung.Load() == 0 && i < 4000; i++ { // until both are connected
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := c.ListProxies(ctx, &gatewayv1.ListProxiesRequest{}); status.Code(err) == codes.DeadlineExceeded {
			failed++
		} else if err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if n := hung.Load(); n != 1 || failed != 1 {
		t.Errorf("%d calls went to the server that hangs, and %d failed; want one", n, failed)
	}
	close(release)
}

func TestWrongAddressesAreRefused(t *testing.T) {
	for _, target := range []string{"", "host", "10.0.2.15", "host:", ":6665", "a:1,,b:2", "[::1"} {
		if _, err := Dial(target, ClientConfig{}); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
			t.Errorf("Dial(%q): %v, want an error that shows the form", target, err)
		}
	}
	c, err := Dial("dns:///localhost:1", ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestStopEndsStreamsAtOnce(t *testing.T) {
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{})
	c := registryAt(t, s.addr, ClientConfig{})
	w, err := c.Watch(t.Context(), &registryv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	k, err := c.KeepLease(t.Context()) // its handler waits in Recv
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Send(&registryv1.KeepLeaseRequest{LeaseId: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Recv(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > StopTimeout/2 {
		t.Errorf("the stop took %v", d)
	}
	for name, recv := range map[string]func() error{
		"Watch":     func() error { _, err := w.Recv(); return err },
		"KeepLease": func() error { _, err := k.Recv(); return err },
	} {
		if err := recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s ended with %v, want Unavailable", name, err)
		}
	}
	if s.log.count("cut off") != 0 {
		t.Errorf("log:\n%s", s.log)
	}
}

func TestStopCutsOffCallsThatDoNotEnd(t *testing.T) {
	inside := make(chan struct{})
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(ctx context.Context) error {
		close(inside)
		<-ctx.Done() // ends when the connection is closed, not before
		return ctx.Err()
	}}, table{})
	c := gatewayAt(t, s.addr, ClientConfig{})
	result := make(chan error, 1)
	go func() { result <- list(t, c) }()
	<-inside
	begin := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < StopTimeout || d > StopTimeout+2*time.Second {
		t.Errorf("the stop took %v, want %v", d, StopTimeout)
	}
	if err := <-result; status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v, want Unavailable", err)
	}
	if s.log.count("cut off") != 1 {
		t.Errorf("log:\n%s", s.log)
	}
}

func TestServeEndsWhenAListenerFails(t *testing.T) {
	log, _ := newLog()
	s, err := NewServer(ServerConfig{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	good, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = bad.Close()
	if err := Serve(t.Context(), s, good, bad); err == nil || !strings.Contains(err.Error(), bad.Addr().String()) {
		t.Errorf("got %v, want an error that names %s", err, bad.Addr())
	}
}

func TestMessagesAreBounded(t *testing.T) {
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{})
	c := registryAt(t, s.addr, ClientConfig{})
	big := &registryv1.GetVirtualServiceRequest{Name: strings.Repeat("x", MaxMessageBytes+1)}
	if _, err := c.GetVirtualService(t.Context(), big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want ResourceExhausted", err)
	}
	// The server doesn't rely on the client's good manners.
	if _, err := c.GetVirtualService(t.Context(), big, grpc.MaxCallSendMsgSize(2*MaxMessageBytes)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("past the client's limit: got %v, want ResourceExhausted", err)
	}
}
