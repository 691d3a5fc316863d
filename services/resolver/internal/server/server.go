// Package server is the resolver's gRPC side: the names that DNS answers for, looked up and watched.
//
// A watcher holds the zone that it was last told and is told how the present one differs, however many revisions lie
// between: there is no queue to overflow, and a change that is undone before the watcher had time for it is not told.
// Invariant: upserts and removes, applied in order, are the names of the table at the last revision told. Start
// reading at [Server.WatchNames].
package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"appswitch.io/internal/axpb"
	resolverv1 "appswitch.io/proto/gen/appswitch/resolver/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/resolver/internal/zone"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Limits of a watch.
const (
	MaxWatchers = 1024             // streams at a time
	MaxBatch    = 1 << 20          // bytes of one message, but for its last name
	maxAddrs    = 4096             // addresses, and services, of one name; more are left out
	SendTimeout = 10 * time.Second // a watcher that takes longer over a message is cut off
)

// Zones is where the names come from.
type Zones interface {
	// Next returns the present zone, nil if there is none yet, and a channel that is closed when there is a newer one.
	Next() (*zone.Zone, <-chan struct{})
}

// Server implements ResolverService.
type Server struct {
	resolverv1.UnimplementedResolverServiceServer

	zones       Zones
	slots       chan struct{} // one for each watcher
	stop        chan struct{} // closed by Stop
	once        sync.Once
	sendTimeout time.Duration
	cutOff      prometheus.Counter
	overflow    prometheus.Counter
}

// New returns the service.
func New(zones Zones, r prometheus.Registerer) (*Server, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "appswitch", Subsystem: "resolver", Name: name, Help: help})
	}
	s := &Server{
		zones: zones, slots: make(chan struct{}, MaxWatchers), stop: make(chan struct{}), sendTimeout: SendTimeout,
		cutOff:   counter("watchers_cut_off_total", "Watchers of names cut off because they did not keep up."),
		overflow: counter("watchers_refused_total", "Watchers of names refused because there were too many."),
	}
	watchers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "appswitch", Subsystem: "resolver", Name: "watchers", Help: "Open watches of names.",
	}, func() float64 { return float64(len(s.slots)) })
	return s, errors.Join(r.Register(s.cutOff), r.Register(s.overflow), r.Register(watchers))
}

// Stop ends all watches, now and in future.
func (s *Server) Stop() { s.once.Do(func() { close(s.stop) }) }

// Resolve implements ResolverService.
func (s *Server) Resolve(_ context.Context, r *resolverv1.ResolveRequest) (*resolverv1.ResolveResponse, error) {
	if r.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "name: missing")
	}
	z, _ := s.zones.Next()
	if z == nil {
		return nil, status.Error(codes.Unavailable, "the service table has not arrived yet")
	}
	h, ok := z.Host(r.GetName())
	if !ok {
		return nil, status.Errorf(codes.NotFound, "name %q: no endpoint and no virtual service carries it", r.GetName())
	}
	return &resolverv1.ResolveResponse{Name: name(h), Revision: int64(z.Revision())}, nil
}

// WatchNames implements ResolverService.
func (s *Server) WatchNames(_ *resolverv1.WatchNamesRequest, stream grpc.ServerStreamingServer[resolverv1.WatchNamesResponse]) error {
	select {
	case s.slots <- struct{}{}:
	default:
		s.overflow.Inc()
		return status.Errorf(codes.ResourceExhausted, "%d watchers already", MaxWatchers)
	}
	defer func() { <-s.slots }()
	out := newSender(stream, s.sendTimeout)
	defer out.stop()
	var told *zone.Zone
	for {
		z, newer := s.zones.Next()
		if z != nil && z != told {
			for m := range messages(z, told) {
				if err := out.send(m); err != nil {
					if errors.Is(err, errSlow) {
						s.cutOff.Inc()
						return status.Errorf(codes.ResourceExhausted, "a message was not taken in %s: watch again", s.sendTimeout)
					}
					return err
				}
			}
			told = z
		}
		select {
		case <-newer:
		case <-s.stop:
			return status.Error(codes.Unavailable, "the resolver is stopping")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// messages tells how z differs from what was told, in messages of bounded size; with nothing told, all of it. Changes
// of the table that change no name are told as a revision alone.
func messages(z, told *zone.Zone) func(func(*resolverv1.WatchNamesResponse) bool) {
	return func(yield func(*resolverv1.WatchNamesResponse) bool) {
		var upserts []*zone.Host
		var removes []string
		if told == nil {
			for _, h := range z.Hosts() {
				upserts = append(upserts, h)
			}
		} else {
			upserts, removes = z.Since(told)
		}
		slices.SortFunc(upserts, func(a, b *zone.Host) int { return strings.Compare(a.Name, b.Name) })
		slices.Sort(removes)
		m, size := &resolverv1.WatchNamesResponse{Revision: int64(z.Revision()), Full: told == nil}, 0
		// room makes place for so many bytes, and reports whether the receiver still listens.
		room := func(n int) bool {
			if size += n; size <= MaxBatch || size == n {
				return true
			}
			ok := yield(m)
			m, size = &resolverv1.WatchNamesResponse{Revision: int64(z.Revision())}, n
			return ok
		}
		for _, n := range removes {
			if !room(len(n)) {
				return
			}
			m.Removes = append(m.Removes, n)
		}
		for _, h := range upserts {
			n := name(h)
			if !room(proto.Size(n)) {
				return
			}
			m.Upserts = append(m.Upserts, n)
		}
		yield(m)
	}
}

// name writes a host.
func name(h *zone.Host) *resolverv1.Name {
	n := &resolverv1.Name{Name: h.Name, Ips: axpb.Addrs(h.Addrs[:min(len(h.Addrs), maxAddrs)])}
	addrs := make([]netip.AddrPort, 0, len(h.Services))
	for _, s := range h.Services {
		addrs = append(addrs, s.Addr)
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	addrs = slices.Compact(addrs)
	n.Services = make([]*typev1.SocketAddress, 0, len(addrs))
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		n.Services = append(n.Services, axpb.AddrPort(a))
	}
	return n
}

var errSlow = errors.New("slow watcher")

// sender sends to a stream with a bound on the time that takes. A Send that hangs ends when the handler returns.
type sender struct {
	timeout time.Duration
	in      chan *resolverv1.WatchNamesResponse
	out     chan error
}

func newSender(stream grpc.ServerStreamingServer[resolverv1.WatchNamesResponse], timeout time.Duration) *sender {
	s := &sender{timeout: timeout, in: make(chan *resolverv1.WatchNamesResponse), out: make(chan error, 1)}
	go func() {
		for m := range s.in {
			s.out <- stream.Send(m)
		}
	}()
	return s
}

func (s *sender) send(m *resolverv1.WatchNamesResponse) error {
	s.in <- m
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	select {
	case err := <-s.out:
		if err != nil {
			return fmt.Errorf("send names: %w", err)
		}
		return nil
	case <-timer.C:
		return errSlow
	}
}

// stop ends the goroutine, at the latest when the stream has ended.
func (s *sender) stop() { close(s.in) }
