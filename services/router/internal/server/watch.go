package server

import (
	"context"
	"time"

	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	"appswitch.io/internal/rpc"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// WatchRoutes implements the router's gRPC service.
func (s *Server) WatchRoutes(req *routerv1.WatchRoutesRequest, stream grpc.ServerStreamingServer[routerv1.WatchRoutesResponse]) error {
	if req.GetNode() == "" {
		return rpc.Errorf(codes.InvalidArgument, "missing").On("node").WithFix("give the name of the node that asks")
	}
	if s.watchers.Add(1) > MaxWatchers {
		s.watchers.Add(-1)
		s.metrics.refused.Inc()
		return rpc.Errorf(codes.ResourceExhausted, "%d nodes watch already", MaxWatchers).WithFix("run more routers")
	}
	defer s.watchers.Add(-1)
	w := newWatcher(s, stream)
	defer w.close()
	err := w.follow(stream.Context())
	if w.cutOff {
		s.metrics.cutOff.Inc()
		s.cfg.Log.Warn("node does not receive its routes and was cut off", "node", req.GetNode(), "timeout", s.cfg.SendTimeout)
	}
	return err
}

// watcher is one stream. What it has sent last is all it remembers.
type watcher struct {
	s      *Server
	sent   *edition // nil before the snapshot was sent
	queue  chan *routerv1.WatchRoutesResponse
	done   chan error
	timer  *time.Timer
	cutOff bool
}

// newWatcher starts the goroutine that sends. It ends with close, or, if a send is blocked then, as soon as the call
// has returned: gRPC offers no other way to end a send.
func newWatcher(s *Server, stream grpc.ServerStreamingServer[routerv1.WatchRoutesResponse]) *watcher {
	w := &watcher{s: s, queue: make(chan *routerv1.WatchRoutesResponse), done: make(chan error, 1), timer: time.NewTimer(s.cfg.SendTimeout)}
	go func() {
		for m := range w.queue {
			w.done <- stream.Send(m)
		}
	}()
	return w
}

func (w *watcher) close() {
	w.timer.Stop()
	close(w.queue)
}

// follow sends each edition as soon as the one before is out, skipping those that came and went meanwhile.
func (w *watcher) follow(ctx context.Context) error {
	confirm := time.NewTicker(w.s.cfg.Confirm)
	defer confirm.Stop()
	for {
		now := w.s.current.Load()
		if now.snapshot != nil && now != w.sent {
			if err := w.catchUp(ctx, now); err != nil {
				return err
			}
			confirm.Reset(w.s.cfg.Confirm)
			continue
		}
		select {
		case <-now.replaced:
		case <-confirm.C:
			if err := w.confirm(ctx); err != nil {
				return err
			}
		case <-w.s.stopped:
			return errStopping()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func errStopping() error {
	return rpc.Errorf(codes.Unavailable, "the router is stopping").WithFix("watch again, another router may answer")
}

// catchUp sends what leads from the edition sent last to another one.
func (w *watcher) catchUp(ctx context.Context, now *edition) error {
	was := w.sent
	w.sent = now
	switch {
	case was == nil:
		w.s.metrics.snapshots.Inc()
		return w.sendDelta(ctx, now.snapshot.Full())
	case was.snapshot == now.from:
		w.s.metrics.deltas.Inc()
		for _, m := range now.delta() {
			if err := w.send(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}
	w.s.metrics.deltas.Inc()
	w.s.metrics.coalesced.Add(float64(now.number - was.number - 1))
	return w.sendDelta(ctx, route.Diff(was.snapshot, now.snapshot))
}

func (w *watcher) sendDelta(ctx context.Context, d route.Delta) error {
	for m := range axpb.Routes(d) {
		m.Age = durationpb.New(w.s.age())
		if err := w.send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// confirm tells the node that its snapshot still holds, and how old it may be. Before there is one, nothing is said.
func (w *watcher) confirm(ctx context.Context) error {
	if w.sent == nil {
		return nil
	}
	return w.sendDelta(ctx, route.Delta{Revision: w.sent.snapshot.Revision()})
}

// send sends one message, or gives the node up if it takes nothing for too long.
func (w *watcher) send(ctx context.Context, m *routerv1.WatchRoutesResponse) error {
	w.queue <- m
	w.timer.Reset(w.s.cfg.SendTimeout)
	select {
	case err := <-w.done:
		return err
	case <-w.timer.C:
		w.cutOff = true
		return rpc.Errorf(codes.ResourceExhausted, "nothing was received for %s", w.s.cfg.SendTimeout).WithFix("watch again to get a new snapshot")
	case <-w.s.stopped:
		return errStopping()
	case <-ctx.Done():
		return ctx.Err()
	}
}
