package axpb

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/protobuf/proto"
)

// Limits of a stream of routes.
const (
	MaxRoutesMessage   = 512 << 10            // bytes of one message, well below gRPC's limit of 4 MiB
	MaxRoutesEndpoints = 1 << 20              // endpoints of one snapshot or delta, counted by service
	fillRoutesMessage  = MaxRoutesMessage / 2 // a message that reached this is sent: no single entry is half as large
)

// Routes writes a delta as messages of at most MaxRoutesMessage bytes, of which the last is complete.
func Routes(d route.Delta) iter.Seq[*routerv1.WatchRoutesResponse] {
	return func(yield func(*routerv1.WatchRoutesResponse) bool) {
		w := routesWriter{yield: yield, revision: int64(d.Revision)}
		w.begin(d.Full)
		if w.write(d) {
			w.msg.Complete = true
			yield(w.msg)
		}
	}
}

type routesWriter struct {
	yield    func(*routerv1.WatchRoutesResponse) bool
	revision int64
	msg      *routerv1.WatchRoutesResponse
	size     int // of msg, roughly
}

func (w *routesWriter) begin(full bool) {
	w.msg, w.size = &routerv1.WatchRoutesResponse{Revision: w.revision, Full: full}, 0
}

// added accounts for what was put into the message and reports whether to go on.
func (w *routesWriter) added(bytes int) bool {
	const overhead = 8 // tag and length
	if w.size += bytes + overhead; w.size < fillRoutesMessage {
		return true
	}
	ok := w.yield(w.msg)
	w.begin(false)
	return ok
}

// write puts removals first, in the order in which they are applied.
func (w *routesWriter) write(d route.Delta) bool {
	return each(d.Removes, func(k route.ServiceKey) bool {
		p := &routerv1.ServiceKey{Protocol: Protocol(k.Proto), Address: AddrPort(k.Addr)}
		w.msg.Removes = append(w.msg.Removes, p)
		return w.added(proto.Size(p))
	}) && each(d.ReleasedClaims, func(a netip.Addr) bool {
		w.msg.ReleasedClaims = append(w.msg.ReleasedClaims, a.String())
		return w.added(len(a.String()))
	}) && each(d.RemovedNodes, func(n ax.NodeName) bool {
		w.msg.RemovedNodes = append(w.msg.RemovedNodes, string(n))
		return w.added(len(n))
	}) && each(d.RemovedPolicies, func(name string) bool {
		w.msg.RemovedPolicies = append(w.msg.RemovedPolicies, name)
		return w.added(len(name))
	}) && each(d.Nodes, func(n ax.Node) bool {
		p := Node(n)
		w.msg.Nodes = append(w.msg.Nodes, p)
		return w.added(proto.Size(p))
	}) && each(d.Policies, func(in ax.Policy) bool {
		p := Policy(in)
		w.msg.Policies = append(w.msg.Policies, p)
		return w.added(proto.Size(p))
	}) && each(d.Claims, func(a netip.Addr) bool {
		w.msg.Claims = append(w.msg.Claims, a.String())
		return w.added(len(a.String()))
	}) && each(d.Upserts, w.service)
}

func (w *routesWriter) service(svc route.Service) bool {
	var part *routerv1.Service
	var in *routerv1.WatchRoutesResponse // the message that part belongs to
	weights := svc.Weights
	return each(svc.Endpoints, func(e *ax.Endpoint) bool {
		bytes := 0
		if in != w.msg {
			in = w.msg
			part = &routerv1.Service{
				Protocol: Protocol(svc.Key.Proto), Address: AddrPort(svc.Key.Addr), Balancer: Balancer(svc.Balancer),
				SessionAffinity: duration(svc.Affinity), SourceIp: optionalAddr(svc.Source),
			}
			w.msg.Upserts = append(w.msg.Upserts, part)
			bytes = proto.Size(part)
		}
		p := Endpoint(*e)
		part.Endpoints = append(part.Endpoints, p)
		if len(weights) > 0 {
			part.Weights, weights = append(part.Weights, uint32(weights[0])), weights[1:]
		}
		return w.added(bytes + proto.Size(p))
	})
}

func each[T any](in []T, f func(T) bool) bool {
	for _, v := range in {
		if !f(v) {
			return false
		}
	}
	return true
}

// RoutesReader joins the messages of one stream of routes into deltas. The zero RoutesReader is ready.
type RoutesReader struct {
	started   bool // a full message has been read
	pending   *route.Delta
	endpoints int // of pending
}

// Read takes a message and returns the delta that it completes, if it does; the first of a stream is full. After an
// error the stream must be opened anew: what it said is no longer known.
func (r *RoutesReader) Read(p *routerv1.WatchRoutesResponse) (d route.Delta, complete bool, err error) {
	if !p.GetFull() && !r.started {
		return route.Delta{}, false, errors.New("watch_routes_response.full: the stream does not start with a snapshot")
	}
	r.started = true
	if r.pending == nil || p.GetFull() {
		r.pending, r.endpoints = &route.Delta{Full: p.GetFull()}, 0
	}
	r.pending.Revision = ax.Revision(p.GetRevision())
	if err := r.add(p); err != nil {
		*r = RoutesReader{}
		return route.Delta{}, false, err
	}
	if !p.GetComplete() {
		return route.Delta{}, false, nil
	}
	d, r.pending = *r.pending, nil
	return d, true, nil
}

func (r *RoutesReader) add(p *routerv1.WatchRoutesResponse) error {
	d := r.pending
	for _, s := range p.GetUpserts() {
		if err := r.upsert(s); err != nil {
			return err
		}
	}
	for _, k := range p.GetRemoves() {
		key, err := serviceKeyFrom("removes", k)
		if err != nil {
			return err
		}
		d.Removes = append(d.Removes, key)
	}
	var err error
	if d.Claims, err = addrsFrom(d.Claims, "claims", p.GetClaims()); err != nil {
		return err
	}
	if d.ReleasedClaims, err = addrsFrom(d.ReleasedClaims, "released_claims", p.GetReleasedClaims()); err != nil {
		return err
	}
	for _, in := range p.GetNodes() {
		n, err := NodeFrom(in)
		if err != nil {
			return err
		}
		d.Nodes = append(d.Nodes, n)
	}
	for _, name := range p.GetRemovedNodes() {
		d.RemovedNodes = append(d.RemovedNodes, ax.NodeName(name))
	}
	for _, in := range p.GetPolicies() {
		pol, err := PolicyFrom(in)
		if err != nil {
			return err
		}
		d.Policies = append(d.Policies, pol)
	}
	d.RemovedPolicies = append(d.RemovedPolicies, p.GetRemovedPolicies()...)
	return nil
}

func (r *RoutesReader) upsert(in *routerv1.Service) error {
	if r.endpoints += len(in.GetEndpoints()); r.endpoints > MaxRoutesEndpoints {
		return fmt.Errorf("upserts.endpoints: more than %d in one delta", MaxRoutesEndpoints)
	}
	svc, err := serviceFrom(in)
	if err != nil {
		return err
	}
	d := r.pending
	if last := len(d.Upserts) - 1; last >= 0 && d.Upserts[last].Key == svc.Key {
		if (d.Upserts[last].Weights == nil) != (svc.Weights == nil) {
			return fmt.Errorf("upserts.weights: only a part of the service at %s has some", svc.Key.Addr)
		}
		d.Upserts[last].Endpoints = append(d.Upserts[last].Endpoints, svc.Endpoints...)
		d.Upserts[last].Weights = append(d.Upserts[last].Weights, svc.Weights...)
		return nil
	}
	d.Upserts = append(d.Upserts, svc)
	return nil
}

func serviceFrom(p *routerv1.Service) (route.Service, error) {
	key, err := serviceKeyFrom("upserts", p)
	if err != nil {
		return route.Service{}, err
	}
	balancer, err := BalancerFrom(p.GetBalancer())
	if err != nil {
		return route.Service{}, fmt.Errorf("upserts.%w", err)
	}
	svc := route.Service{Key: key, Balancer: balancer, Endpoints: make([]*ax.Endpoint, 0, len(p.GetEndpoints()))}
	if svc.Affinity, err = durationFrom("upserts.session_affinity", p.GetSessionAffinity()); err != nil {
		return route.Service{}, err
	}
	if svc.Source, err = optionalAddrFrom("upserts.source_ip", p.GetSourceIp()); err != nil {
		return route.Service{}, err
	}
	if n := len(p.GetWeights()); n > 0 && n != len(p.GetEndpoints()) {
		return route.Service{}, fmt.Errorf("upserts.weights: %d for %d endpoints", n, len(p.GetEndpoints()))
	}
	for _, w := range p.GetWeights() {
		if w < 1 || w > ax.MaxWeight {
			return route.Service{}, fmt.Errorf("upserts.weights: %d: want 1 to %d", w, ax.MaxWeight)
		}
		svc.Weights = append(svc.Weights, uint16(w))
	}
	for _, in := range p.GetEndpoints() {
		e, err := EndpointFrom(in)
		if err != nil {
			return route.Service{}, fmt.Errorf("upserts %s: %w", key.Addr, err)
		}
		svc.Endpoints = append(svc.Endpoints, &e)
	}
	return svc, nil
}

// keyed is what a service and its key have in common on the wire.
type keyed interface {
	GetProtocol() typev1.Protocol
	GetAddress() *typev1.SocketAddress
}

func serviceKeyFrom(field string, p keyed) (route.ServiceKey, error) {
	prot, err := ProtocolFrom(p.GetProtocol())
	if err != nil {
		return route.ServiceKey{}, fmt.Errorf("%s.%w", field, err)
	}
	a, err := AddrPortFrom(field+".address", p.GetAddress())
	return route.ServiceKey{Proto: prot, Addr: a}, err
}

func addrsFrom(out []netip.Addr, field string, in []string) ([]netip.Addr, error) {
	for _, s := range in {
		a, err := AddrFrom(field, s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// VerdictFrom reads a verdict.
func VerdictFrom(v routerv1.Verdict) (ax.Verdict, error) {
	switch v {
	case routerv1.Verdict_VERDICT_ALLOW:
		return ax.Allow, nil
	case routerv1.Verdict_VERDICT_DENY:
		return ax.Deny, nil
	case routerv1.Verdict_VERDICT_PASSTHROUGH:
		return ax.Passthrough, nil
	}
	return 0, fmt.Errorf("verdict: %s is not one", v)
}

// Verdict writes a verdict.
func Verdict(v ax.Verdict) routerv1.Verdict {
	switch v {
	case ax.Allow:
		return routerv1.Verdict_VERDICT_ALLOW
	case ax.Deny:
		return routerv1.Verdict_VERDICT_DENY
	case ax.Passthrough:
		return routerv1.Verdict_VERDICT_PASSTHROUGH
	}
	return routerv1.Verdict_VERDICT_UNSPECIFIED
}
