package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// ServerConfig is what a server is built from. Log is required, the rest may be left out.
type ServerConfig struct {
	Log        *slog.Logger
	Metrics    prometheus.Registerer
	Tracer     opentracing.Tracer
	TLS        TLS
	Reflection bool // let tools list the services and their methods
	// Ready says whether calls can be answered; until it does the first time, health is NOT_SERVING, and clients that know
	// another address go there. None: from the start.
	Ready func() bool
}

// Server is a gRPC server with its health service.
type Server struct {
	*grpc.Server
	Health *health.Server // SERVING as soon as it is ready, as a whole ("") and each service by its name

	log      *slog.Logger
	secure   bool
	ready    func() bool   // nil: it is
	draining chan struct{} // closed when Serve begins to stop
	drain    sync.Once
}

// NewServer builds a server; services register on it, then [Serve] runs it.
func NewServer(cfg ServerConfig) (*Server, error) {
	creds, err := newChannel(cfg.TLS, cfg.Log)
	if err != nil {
		return nil, err
	}
	m, err := newCallMetrics(cfg.Metrics, "server")
	if err != nil {
		return nil, err
	}
	s := &Server{Health: health.NewServer(), log: cfg.Log, secure: cfg.TLS.Enabled, ready: cfg.Ready, draining: make(chan struct{})}
	h := &serverHooks{log: cfg.Log, metrics: m, tracer: tracerOr(cfg.Tracer), draining: s.draining}
	s.Server = grpc.NewServer(
		grpc.Creds(creds),
		grpc.ChainUnaryInterceptor(h.unary),
		grpc.ChainStreamInterceptor(h.stream),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxHeaderListSize(MaxMetadataBytes),
		grpc.MaxConcurrentStreams(MaxStreams),
		grpc.ConnectionTimeout(ConnectTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveAfter, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinGap, PermitWithoutStream: true}),
	)
	healthv1.RegisterHealthServer(s, s.Health)
	if cfg.Reflection {
		reflection.Register(s)
	}
	return s, nil
}

// Serve serves on all listeners until ctx ends or one of them fails, then stops the server: streams are cancelled,
// other calls may finish, and whatever is left after [StopTimeout] is cut off. It closes the listeners.
func Serve(ctx context.Context, s *Server, listeners ...net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	s.setServing(s.ready == nil)
	if s.ready != nil {
		g.Go(func() error {
			s.awaitReady(ctx)
			return nil
		})
	}
	for _, l := range listeners {
		if !s.secure && reachable(l.Addr()) {
			s.log.Warn("gRPC is neither encrypted nor authenticated: use --tls, or listen on loopback", "address", l.Addr().String())
		}
		g.Go(func() error {
			if err := s.Serve(netutil.LimitListener(l, MaxConnections)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		s.shutDown()
		return nil
	})
	return g.Wait()
}

// awaitReady turns health to SERVING once the server is ready.
func (s *Server) awaitReady(ctx context.Context) {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for !s.ready() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	s.setServing(true)
}

func (s *Server) setServing(serving bool) {
	st := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		st = healthv1.HealthCheckResponse_SERVING
	}
	s.Health.SetServingStatus("", st)
	for name := range s.GetServiceInfo() {
		s.Health.SetServingStatus(name, st)
	}
}

func (s *Server) shutDown() {
	s.Health.Shutdown()
	s.drain.Do(func() { close(s.draining) })
	late := time.AfterFunc(StopTimeout, func() {
		s.log.Warn("calls did not end in time and were cut off", "timeout", StopTimeout)
		s.Stop()
	})
	s.GracefulStop()
	late.Stop()
}

// reachable reports whether other machines can reach the address.
func reachable(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

func tracerOr(t opentracing.Tracer) opentracing.Tracer {
	if t == nil {
		return opentracing.NoopTracer{}
	}
	return t
}
