package server

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	"appswitch.io/internal/rpc"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Route implements the router's gRPC service.
func (s *Server) Route(_ context.Context, req *routerv1.RouteRequest) (*routerv1.RouteResponse, error) {
	f, err := flowFrom(req)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	return routeResponse(s.decider.Decide(snapshot, f, nil)), nil
}

func flowFrom(req *routerv1.RouteRequest) (ax.Flow, error) {
	f := ax.Flow{Labels: req.GetLabels(), Proto: ax.TCP}
	if len(f.Labels) == 0 {
		f.Labels = ax.DefaultLabels()
	}
	if err := f.Labels.Validate(); err != nil {
		return f, rpc.Invalid(err).On("labels")
	}
	var err error
	if req.GetProtocol() != typev1.Protocol_PROTOCOL_UNSPECIFIED {
		if f.Proto, err = axpb.ProtocolFrom(req.GetProtocol()); err != nil {
			return f, rpc.Invalid(err)
		}
	}
	if f.Dest, err = axpb.AddrPortFrom("destination", req.GetDestination()); err != nil {
		return f, rpc.Invalid(err)
	}
	return f, nil
}

func routeResponse(d ax.Decision) *routerv1.RouteResponse {
	resp := &routerv1.RouteResponse{Verdict: axpb.Verdict(d.Verdict), Reason: d.Why(), AuditPolicy: d.Audit, Revision: int64(d.Revision)}
	if d.Endpoint != nil {
		resp.Endpoint = axpb.Endpoint(*d.Endpoint)
	}
	return resp
}

// Explain implements the router's gRPC service.
func (s *Server) Explain(_ context.Context, req *routerv1.ExplainRequest) (*routerv1.ExplainResponse, error) {
	snapshot, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	var f ax.Flow
	if f.Proto, err = ax.ParseProtocol(req.GetProtocol()); err != nil {
		return nil, rpc.Invalid(err).On("protocol")
	}
	if f.App, f.Labels, err = s.client(req); err != nil {
		return nil, err
	}
	if f.Dest, err = s.destination(snapshot, f.Proto, req.GetDestination()); err != nil {
		return nil, err
	}
	outliers, err := ejected(req, f.Proto)
	if err != nil {
		return nil, err
	}
	d, candidates := route.ExplainOn(snapshot, f, outliers)
	resp := &routerv1.ExplainResponse{
		Verdict: axpb.Verdict(d.Verdict), Reason: d.Why(), Errno: d.ErrnoName(), AuditPolicy: d.Audit,
		Destination: axpb.AddrPort(f.Dest), Revision: int64(d.Revision), Age: durationpb.New(s.age()),
	}
	for _, c := range candidates {
		resp.Candidates = append(resp.Candidates, &routerv1.Candidate{
			Endpoint: axpb.Endpoint(*c.Endpoint), Eligible: c.Eligible, Reason: c.Reason.By(c.Policy), AuditPolicy: c.Audit,
		})
	}
	return resp, nil
}

// maxEjected bounds ExplainRequest.ejected.
const maxEjected = route.MaxOutliers

// ejected makes what the client's node knows of failed connects.
func ejected(req *routerv1.ExplainRequest, proto ax.Protocol) (*route.Outliers, error) {
	if len(req.GetEjected()) > maxEjected {
		return nil, rpc.Errorf(codes.InvalidArgument, "%d addresses, at most %d", len(req.GetEjected()), maxEjected).On("ejected")
	}
	hosts := make([]netip.AddrPort, 0, len(req.GetEjected()))
	for _, text := range req.GetEjected() {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, rpc.Errorf(codes.InvalidArgument, "%q is not an address with a port", text).On("ejected")
		}
		hosts = append(hosts, a)
	}
	cfg := route.DefaultOutlierConfig()
	cfg.Share = int(min(req.GetEjectedShare(), 100))
	return route.EjectedElsewhere(cfg, proto, hosts, time.Now()), nil
}

// client finds out who connects.
func (s *Server) client(req *routerv1.ExplainRequest) (ax.AppID, ax.Labels, error) {
	switch {
	case req.GetApp() != "" && len(req.GetLabels()) > 0:
		return "", nil, rpc.Errorf(codes.InvalidArgument, "given along with app").On("labels").WithFix("give one of them")
	case req.GetApp() != "":
		s.mu.RLock()
		defer s.mu.RUnlock()
		app, err := s.builder.App(req.GetApp())
		if err != nil {
			return "", nil, rpc.Errorf(codes.NotFound, "%w", err).On("app")
		}
		return app.ID, app.Labels, nil
	case len(req.GetLabels()) > 0:
		labels, err := ax.ParseLabels(strings.Join(req.GetLabels(), ","))
		if err != nil {
			return "", nil, rpc.Invalid(err).On("labels")
		}
		return "", labels, nil
	}
	return "", ax.DefaultLabels(), nil
}

// destination reads "ip:port" or "name:port". Of a name with several addresses it takes the first that serves the port.
func (s *Server) destination(snapshot *route.Snapshot, proto ax.Protocol, text string) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return netip.AddrPort{}, rpc.Errorf(codes.InvalidArgument, "%q is not a destination", text).On("destination").
			WithFix("give ip:port or name:port, such as 1.1.1.1:80, [2001:db8::1]:80 or web:80")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}, rpc.Errorf(codes.InvalidArgument, "port %q of %q", portText, text).On("destination").WithFix("give a port from 1 to 65535")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(port)), nil
	}
	s.mu.RLock()
	addrs := s.builder.Addrs(s.bare(host))
	s.mu.RUnlock()
	if len(addrs) == 0 {
		return netip.AddrPort{}, rpc.Errorf(codes.NotFound, "the service table has no name %q", host).On("destination").
			WithFix("give an address: names outside the table are not looked up")
	}
	first := max(0, slices.IndexFunc(addrs, func(a netip.Addr) bool {
		_, serves := snapshot.Service(route.ServiceKey{Proto: proto, Addr: netip.AddrPortFrom(a, uint16(port))})
		return serves
	}))
	return netip.AddrPortFrom(addrs[first], uint16(port)), nil
}

// bare drops the final dot and the domain from a name.
func (s *Server) bare(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if domain := strings.ToLower(strings.Trim(s.cfg.DNSDomain, ".")); domain != "" {
		name = strings.TrimSuffix(name, "."+domain)
	}
	return name
}
