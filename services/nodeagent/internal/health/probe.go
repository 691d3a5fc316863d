package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// userAgent is how checks name themselves.
const userAgent = "appswitch-health"

// probe checks a target once, on a connection of its own.
func (c *Checker) probe(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, t.Check.Timeout)
	defer cancel()
	dial := func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, t) }
	switch t.Check.Type {
	case ax.CheckHTTP:
		return probeHTTP(ctx, t, dial)
	case ax.CheckGRPC:
		return probeGRPC(ctx, t, dial)
	}
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

func probeHTTP(ctx context.Context, t Target, dial func(context.Context) (net.Conn, error)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.Service.String()+t.Check.Path, nil)
	if err != nil {
		return fmt.Errorf("check %s: %w", t.Check, err)
	}
	req.Header.Set("User-Agent", userAgent)
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // a redirection is an answer
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return refusal(fmt.Sprintf("HTTP %d", resp.StatusCode))
	}
	return nil
}

func probeGRPC(ctx context.Context, t Target, dial func(context.Context) (net.Conn, error)) error {
	var mu sync.Mutex // guards refused
	var refused error // what the connection failed with: gRPC keeps only its text
	conn, err := grpc.NewClient("passthrough:///"+t.Service.String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(userAgent), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := dial(ctx)
			mu.Lock()
			defer mu.Unlock()
			refused = err
			return conn, err
		}))
	if err != nil {
		return fmt.Errorf("check %s: %w", t.Check, err)
	}
	defer conn.Close()
	resp, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: t.Check.Path})
	if err != nil {
		mu.Lock()
		defer mu.Unlock()
		if refused != nil && status.Code(err) == codes.Unavailable {
			return refused
		}
		return err
	}
	if resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return refusal("gRPC " + resp.GetStatus().String())
	}
	return nil
}

// dial connects to a target at its real address. The application, which closes what no agent has announced, gets to know
// the node as its client.
func (c *Checker) dial(ctx context.Context, t Target) (net.Conn, error) {
	intent := c.deps.Table.Intend(t.Host)
	defer c.deps.Table.Settle(t.Host, intent)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.Host.String())
	if err != nil {
		return nil, err
	}
	client := localAddr(conn)
	return &announced{Conn: conn, probe: c.deps.Table.Announce(client, t.Host, socktab.Peer{Local: t.Service, Remote: client})}, nil
}

func localAddr(conn net.Conn) netip.AddrPort {
	a, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// announced is a connection that is announced until it is closed.
type announced struct {
	net.Conn
	probe *socktab.Probe
}

// Close implements net.Conn.
func (a *announced) Close() error {
	a.probe.End()
	return a.Conn.Close()
}
