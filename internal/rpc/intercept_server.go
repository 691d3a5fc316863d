package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/opentracing/opentracing-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// adminMethods change the cluster for everyone. Peers that only speak for a node may not call them: without TLS they
// are accepted from this machine only.
var adminMethods = map[string]bool{
	"/appswitch.registry.v1.RegistryService/CreateVirtualService": true,
	"/appswitch.registry.v1.RegistryService/DeleteVirtualService": true,
}

// serverHooks is what happens around every call that a server handles.
type serverHooks struct {
	log      *slog.Logger
	metrics  *callMetrics
	tracer   opentracing.Tracer
	draining <-chan struct{}
}

func (h *serverHooks) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	ctx, done := h.begin(ctx, info.FullMethod)
	defer func() { err = done(recover(), err) }()
	if err := h.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (h *serverHooks) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, done := h.begin(ss.Context(), info.FullMethod)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { err = done(recover(), err) }()
	if err := h.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	go func() { // ends with ctx, which ends with this call
		select {
		case <-h.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	err = handler(srv, &drainStream{ServerStream: ss, ctx: ctx, draining: h.draining, receives: info.IsClientStream})
	if err != nil && h.isDraining() {
		return status.Error(codes.Unavailable, errStopping)
	}
	return err
}

const errStopping = "the server is stopping: call again"

func (h *serverHooks) isDraining() bool {
	select {
	case <-h.draining:
		return true
	default:
		return false
	}
}

func (h *serverHooks) admit(ctx context.Context, method string) error {
	if adminMethods[method] && !trustedPeer(ctx) {
		return Errorf(codes.PermissionDenied, "%s changes the cluster and came unauthenticated from another machine", method).
			WithFix("call it on the machine that serves it, or start the daemons with --tls")
	}
	return nil
}

// begin starts span and clock of a call. The function it returns ends them: it turns a panic into INTERNAL, gives the
// error its code, counts and logs.
func (h *serverHooks) begin(ctx context.Context, method string) (context.Context, func(panicked any, err error) error) {
	start := time.Now()
	span, ctx := serverSpan(ctx, h.tracer, method)
	h.metrics.inFlight.Inc()
	return ctx, func(panicked any, err error) error {
		if panicked != nil {
			h.metrics.panics.Inc()
			h.log.Error("call panicked", "method", method, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error: see the log of the server")
		}
		err = toStatus(err)
		code := status.Code(err)
		h.metrics.inFlight.Dec()
		h.metrics.observe(method, code, time.Since(start))
		endSpan(span, code, err)
		if err != nil && panicked == nil {
			h.log.Log(ctx, levelOf(code), "call failed", "method", method, "code", code.String(), "error", status.Convert(err).Message(), "peer", peerName(ctx), "duration", time.Since(start))
		}
		return err
	}
}

// levelOf says how loud a failure is: what the server did wrong is a warning, what the caller did wrong is for debugging.
func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unimplemented, codes.ResourceExhausted:
		return slog.LevelWarn
	case codes.PermissionDenied, codes.Unauthenticated:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

func peerName(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// drainStream lets a handler notice that the server stops: its context ends, and so does a receive that is waiting.
type drainStream struct {
	grpc.ServerStream
	ctx      context.Context // it replaces the one of the stream
	draining <-chan struct{}
	receives bool
}

// Context implements grpc.ServerStream.
func (d *drainStream) Context() context.Context { return d.ctx }

// RecvMsg implements grpc.ServerStream. A receive that is abandoned ends when the handler returns.
func (d *drainStream) RecvMsg(m any) error {
	if !d.receives {
		return d.ServerStream.RecvMsg(m)
	}
	got := make(chan error, 1)
	go func() { got <- d.ServerStream.RecvMsg(m) }()
	select {
	case err := <-got:
		return err
	case <-d.draining:
		return status.Error(codes.Unavailable, errStopping)
	}
}
