package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/selector"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/nodeagent/internal/flows"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxDestinations bounds what WatchFlowsRequest.to lists.
const maxDestinations = 64

// WatchFlows implements NodeAgentService.
func (s *Server) WatchFlows(req *nodeagentv1.WatchFlowsRequest, stream grpc.ServerStreamingServer[nodeagentv1.WatchFlowsResponse]) error {
	filter, err := filterFrom(req, time.Now())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetPastOnly() {
		for _, f := range s.flows.Last(filter) {
			if err := stream.Send(&nodeagentv1.WatchFlowsResponse{Flow: flow(f)}); err != nil {
				return err
			}
		}
		return nil
	}
	ch, missed, err := s.flows.Subscribe(stream.Context(), filter)
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil { // so that the client knows that it misses nothing from now on
		return err
	}
	for f := range ch {
		if err := stream.Send(&nodeagentv1.WatchFlowsResponse{Flow: flow(f), Missed: missed()}); err != nil {
			return err
		}
	}
	return nil
}

// filterFrom reads what a request selects.
func filterFrom(req *nodeagentv1.WatchFlowsRequest, now time.Time) (flows.Filter, error) {
	filter := flows.Filter{App: ax.AppID(req.GetAppId()), Last: int(min(req.GetLast(), flows.Kept))}
	if req.GetSince() != nil {
		since := req.GetSince().AsDuration()
		if err := req.GetSince().CheckValid(); err != nil || since < 0 {
			return filter, fmt.Errorf("since: %s is no span of time that has passed", since)
		}
		filter.Since = now.Add(-since)
	}
	labels, err := selector.Parse(req.GetSelector())
	if err != nil {
		return filter, err
	}
	if len(req.GetTo()) > maxDestinations {
		return filter, fmt.Errorf("to: %d destinations: at most %d", len(req.GetTo()), maxDestinations)
	}
	var to []netip.AddrPort
	for _, text := range req.GetTo() {
		d, err := destinationFrom(text)
		if err != nil {
			return filter, err
		}
		to = append(to, d)
	}
	app, verdicts, audited, retried := req.GetApp(), req.GetVerdicts(), req.GetAudited(), req.GetRetried()
	if slices.Contains(verdicts, routerv1.Verdict_VERDICT_UNSPECIFIED) {
		return filter, fmt.Errorf("verdicts: want VERDICT_ALLOW, VERDICT_DENY or VERDICT_PASSTHROUGH")
	}
	filter.Match = func(f *flows.Flow) bool {
		return (app == "" || app == string(f.App) || app == f.Name) &&
			(len(to) == 0 || slices.ContainsFunc(to, func(d netip.AddrPort) bool { return reaches(d, f.Dest) })) &&
			(len(verdicts) == 0 && !audited || slices.Contains(verdicts, axpb.Verdict(f.Verdict)) || audited && f.Audit != "") &&
			(!retried || f.Retries > 0) && labels.Matches(f.Labels)
	}
	return filter, nil
}

// destinationFrom reads "ip", "ip:port" or ":port". What is left out is invalid, or zero.
func destinationFrom(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.AddrPortFrom(a.Unmap(), 0), nil
	}
	if a, err := netip.ParseAddrPort(text); err == nil && a.Addr().Zone() == "" && a.Port() != 0 {
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
	}
	if digits, ok := strings.CutPrefix(text, ":"); ok {
		if port, err := strconv.ParseUint(digits, 10, 16); err == nil && port != 0 {
			return netip.AddrPortFrom(netip.Addr{}, uint16(port)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("to: %q: want an address, ADDRESS:PORT or :PORT, such as 1.1.1.1:80", text)
}

// reaches reports whether a destination is one of those that destinationFrom read.
func reaches(selected, dest netip.AddrPort) bool {
	return (!selected.Addr().IsValid() || selected.Addr() == dest.Addr()) && (selected.Port() == 0 || selected.Port() == dest.Port())
}

func flow(f flows.Flow) *nodeagentv1.Flow {
	out := &nodeagentv1.Flow{
		Time: timestamppb.New(f.Time), AppId: string(f.App), Protocol: axpb.Protocol(f.Proto), Destination: axpb.AddrPort(f.Dest),
		Verdict: axpb.Verdict(f.Verdict), Reason: f.Reason.By(f.Policy), HostAddress: axpb.AddrPort(f.Host), Retries: uint32(f.Retries),
		AppName: f.Name, Labels: f.Labels, Policy: f.Policy, AuditPolicy: f.Audit,
	}
	if f.Errno != 0 {
		out.Errno = unix.ErrnoName(f.Errno)
	}
	return out
}
