// Package rest serves the REST API: the handlers that grpc-gateway generates from the contracts, behind a front door
// with limits, timeouts and a guard against web pages.
//
// Its invariant: every answer, errors included, is JSON as the contracts describe it, and comes within [CallTimeout];
// only streams last longer, and they end with the server. Start reading at [New] and [Server.Run].
package rest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// Limits of the server.
const (
	CallTimeout    = 5 * time.Second // for a backend to answer; streams have none
	MaxBody        = 1 << 20         // bytes of a request's body
	MaxHeader      = 16 << 10        // bytes of a request's header
	MaxRequests    = 256             // in flight, streams included; more are refused with 503 and counted
	MaxStreams     = 64              // of them; more are refused likewise
	MaxConnections = 1024            // to one address; more wait in the kernel's backlog

	headerTimeout = 5 * time.Second  // for the request line and header
	readTimeout   = 10 * time.Second // for the whole request
	writeTimeout  = 15 * time.Second // for the answer, and for each message of a stream
	idleTimeout   = time.Minute      // between requests of a connection
	stopTimeout   = 2 * time.Second  // for requests to end when the server stops; then they are cut off
)

// Config is what the server is built from.
type Config struct {
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Gatherer  prometheus.Gatherer // shown at /metrics; nil: not there
	Tracer    opentracing.Tracer
	Addresses []netip.AddrPort
	TLS       *tls.Config // for the addresses that are not loopback

	Registry  registryv1.RegistryServiceClient
	NodeAgent nodeagentv1.NodeAgentServiceClient
	Router    routerv1.RouterServiceClient
	Gateway   gatewayv1.GatewayServiceServer // this very process

	writeTimeout time.Duration // tests shorten it
}

// Server serves REST.
type Server struct {
	cfg     Config
	handler http.Handler
}

// New builds the server; nothing runs yet.
func New(cfg Config) (*Server, error) {
	if cfg.Tracer == nil {
		cfg.Tracer = opentracing.NoopTracer{}
	}
	if cfg.writeTimeout == 0 {
		cfg.writeTimeout = writeTimeout
	}
	h, err := newHandler(cfg)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, handler: h}, nil
}

// Run serves on all addresses until ctx ends, then lets requests finish and cancels streams.
func (s *Server) Run(ctx context.Context) error {
	var listeners []net.Listener
	for _, a := range s.cfg.Addresses {
		l, err := s.listen(ctx, a)
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return err
		}
		listeners = append(listeners, l)
	}
	g, gctx := errgroup.WithContext(ctx)
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: s.cfg.writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: MaxHeader,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return withStop(context.WithoutCancel(gctx), gctx) },
	}
	for _, l := range listeners {
		s.cfg.Log.Info("serving REST", "address", l.Addr().String())
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve REST on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-gctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(gctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(late) != nil {
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

func (s *Server) listen(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("serve REST: %w (choose another --rest-port or --rest-listen)", err)
	}
	l = netutil.LimitListener(l, MaxConnections)
	if !a.Addr().IsLoopback() {
		if s.cfg.TLS == nil {
			return nil, errors.Join(fmt.Errorf("serve REST on %s: only loopback addresses are served without TLS", a), l.Close())
		}
		return tls.NewListener(l, s.cfg.TLS), nil
	}
	return l, nil
}

// stopKey finds the context that ends when the server is to stop: what streams watch, while other requests may finish.
type stopKey struct{}

func withStop(ctx, stop context.Context) context.Context {
	return context.WithValue(ctx, stopKey{}, stop)
}

// endWithServer returns a context that also ends when the server is to stop.
func endWithServer(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
		detach := context.AfterFunc(stop, cancel)
		return ctx, func() { detach(); cancel() }
	}
	return ctx, cancel
}
