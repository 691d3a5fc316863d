package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// ClientConfig is what a client is built from; all of it may be left out.
type ClientConfig struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  opentracing.Tracer
	TLS     TLS
}

// Dial returns a client of target: "host:port", or several of them separated by commas, over which calls are spread
// in turn, those left out that are not there, not ready (by their health, see [ServerConfig]) or hang; a target with a scheme ("dns:///name:port", "unix:/path") is left to gRPC. It connects in the background:
// the server may start later, go away and come back. While it is away calls fail at once with UNAVAILABLE, unless they
// ask to wait (grpc.WaitForReady).
func Dial(target string, cfg ClientConfig) (*grpc.ClientConn, error) {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "unix:") {
		return dial(target, cfg)
	}
	var hosts addressList
	for a := range strings.SplitSeq(target, ",") {
		a = strings.TrimSpace(a)
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("gRPC address %q: want HOST:PORT, such as 10.0.2.15:6665, or several separated by commas", a)
		}
		hosts = append(hosts, a)
	}
	more := []grpc.DialOption{grpc.WithResolvers(hosts)}
	if len(hosts) > 1 { // a single one is asked in any case: it says itself what it lacks
		more = append(more, grpc.WithDefaultServiceConfig(healthyInTurn))
	}
	return dial(addressScheme+":///"+strings.Join(hosts, ","), cfg, more...)
}

// Pipe returns a listener within the process and the way to dial it: how services that share a process talk, through
// the same interceptors, limits and errors as over a network. Such connections are never encrypted.
func Pipe() (net.Listener, func(ClientConfig) (*grpc.ClientConn, error)) {
	l := bufconn.Listen(pipeBuffer)
	return l, func(cfg ClientConfig) (*grpc.ClientConn, error) {
		return dial("passthrough:///pipe", cfg, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return l.DialContext(ctx)
		}))
	}
}

// How calls choose among addresses. round_robin, unlike pick_first, reconnects by itself and not only when the next call
// comes.
const (
	inTurn        = `{"loadBalancingConfig":[{"round_robin":{}}]}`
	healthyInTurn = `{"loadBalancingConfig":[{"` + turnsPolicy + `":{}}],"healthCheckConfig":{"serviceName":""}}`
)

func dial(target string, cfg ClientConfig, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds, err := newChannel(cfg.TLS, cfg.Log)
	if err != nil {
		return nil, err
	}
	m, err := newCallMetrics(cfg.Metrics, "client")
	if err != nil {
		return nil, err
	}
	h := &clientHooks{metrics: m, tracer: tracerOr(cfg.Tracer)}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(), // peers are reached directly, whatever HTTPS_PROXY says
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(inTurn),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstReconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: MaxReconnect},
			MinConnectTimeout: ConnectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveAfter, Timeout: keepaliveWait, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithMaxHeaderListSize(MaxMetadataBytes),
		grpc.WithChainUnaryInterceptor(h.unary),
		grpc.WithChainStreamInterceptor(h.stream),
	}, more...)
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("gRPC address %q: %w", target, err)
	}
	return conn, nil
}

// addressScheme marks targets that addressList resolves.
const addressScheme = "appswitch"

// addressList gives gRPC the addresses as they are: host names are looked up at each attempt to connect, so that a
// daemon that comes back under another address is found at once.
type addressList []string

// Scheme implements resolver.Builder.
func (addressList) Scheme() string { return addressScheme }

// OverrideAuthority implements resolver.AuthorityOverrider.
func (l addressList) OverrideAuthority(resolver.Target) string { return l[0] }

// Build implements resolver.Builder.
func (l addressList) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	var s resolver.State
	for _, a := range l {
		address := resolver.Address{Addr: a, ServerName: a}
		s.Endpoints = append(s.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{address}})
		s.Addresses = append(s.Addresses, address) // the same, for turns
	}
	return l, cc.UpdateState(s)
}

// ResolveNow implements resolver.Resolver: the addresses never change.
func (addressList) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (addressList) Close() {}

// clientHooks is what happens around every call that a client makes.
type clientHooks struct {
	metrics *callMetrics
	tracer  opentracing.Tracer
}

func (h *clientHooks) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	ctx, done := h.begin(ctx, method)
	err := invoke(ctx, method, req, reply, cc, opts...)
	done(err)
	return err
}

func (h *clientHooks) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, done := h.begin(ctx, method)
	var once sync.Once
	end := func(err error) { once.Do(func() { done(err) }) }
	s, err := streamer(ctx, desc, cc, method, append(opts, grpc.OnFinish(end))...)
	if err != nil {
		end(err)
	}
	return s, err
}

func (h *clientHooks) begin(ctx context.Context, method string) (context.Context, func(error)) {
	start := time.Now()
	span, ctx := clientSpan(ctx, h.tracer, method)
	h.metrics.inFlight.Inc()
	return ctx, func(err error) {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		h.metrics.inFlight.Dec()
		h.metrics.observe(method, status.Code(err), time.Since(start))
		endSpan(span, status.Code(err), err)
	}
}
