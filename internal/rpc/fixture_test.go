package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logBuffer collects what is logged.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) count(s string) int { return strings.Count(b.String(), s) }

func newLog() (*slog.Logger, *logBuffer) {
	b := &logBuffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// doors answers ListProxies with what list says.
type doors struct {
	gatewayv1.UnimplementedGatewayServiceServer
	list func(context.Context) error
}

func (d doors) ListProxies(ctx context.Context, _ *gatewayv1.ListProxiesRequest) (*gatewayv1.ListProxiesResponse, error) {
	if err := d.list(ctx); err != nil {
		return nil, err
	}
	return &gatewayv1.ListProxiesResponse{Proxies: []*gatewayv1.Proxy{{Id: 7}}}, nil
}

// table has a Watch that sends one message and waits, and a KeepLease that waits for requests.
type table struct {
	registryv1.UnimplementedRegistryServiceServer
	watch func(ctx context.Context) error
}

func (t table) Watch(_ *registryv1.WatchRequest, s registryv1.RegistryService_WatchServer) error {
	if err := s.Send(&registryv1.WatchResponse{Revision: 1}); err != nil {
		return err
	}
	if t.watch != nil {
		return t.watch(s.Context())
	}
	<-s.Context().Done()
	return s.Context().Err()
}

func (table) KeepLease(s registryv1.RegistryService_KeepLeaseServer) error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
		if err := s.Send(&registryv1.KeepLeaseResponse{}); err != nil {
			return err
		}
	}
}

// running is a server that serves; stop ends it and returns what Serve returned.
type running struct {
	addr string
	log  *logBuffer
	stop func() error
}

// start serves d and tab on a TCP listener and on more.
func start(t *testing.T, cfg ServerConfig, addr string, d doors, tab table, more ...net.Listener) running {
	t.Helper()
	log, logged := newLog()
	cfg.Log = log
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d.list == nil {
		d.list = func(context.Context) error { return nil }
	}
	gatewayv1.RegisterGatewayServiceServer(s, d)
	registryv1.RegisterRegistryServiceServer(s, tab)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, s, append(more, l)...) }()
	var once sync.Once
	stop := func() (err error) {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(StopTimeout + 3*time.Second):
				err = errors.New("the server did not stop")
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return running{addr: l.Addr().String(), log: logged, stop: stop}
}

// gatewayAt dials a target and returns a client that is closed with the test.
func gatewayAt(t *testing.T, target string, cfg ClientConfig) gatewayv1.GatewayServiceClient {
	t.Helper()
	c, err := Dial(target, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return gatewayv1.NewGatewayServiceClient(c)
}

func registryAt(t *testing.T, target string, cfg ClientConfig) registryv1.RegistryServiceClient {
	t.Helper()
	c, err := Dial(target, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return registryv1.NewRegistryServiceClient(c)
}

func list(t *testing.T, c gatewayv1.GatewayServiceClient) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	resp, err := c.ListProxies(ctx, &gatewayv1.ListProxiesRequest{})
	if err == nil && resp.GetProxies()[0].GetId() != 7 {
		return errors.New("wrong answer")
	}
	return err
}
