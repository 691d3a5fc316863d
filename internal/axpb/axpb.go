// Package axpb converts between the vocabulary (package ax) and the contracts (proto/gen).
//
// It is the only place where bytes from a peer become values: every From function validates, names the field it
// refuses, and after it nothing needs to be checked again. Start reading at [EndpointFrom].
package axpb

import (
	"fmt"
	"net/netip"
	"time"

	"appswitch.io/internal/ax"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// AddrFrom reads an IP address in text form and unmaps it; field names it in the error.
func AddrFrom(field, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s: %q is not an IP address", field, s)
	}
	return a.Unmap(), nil
}

// AddrPortFrom reads an address and port.
func AddrPortFrom(field string, p *typev1.SocketAddress) (netip.AddrPort, error) {
	if p == nil {
		return netip.AddrPort{}, fmt.Errorf("%s: missing", field)
	}
	a, err := AddrFrom(field+".ip", p.GetIp())
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := PortFrom(field+".port", p.GetPort())
	return netip.AddrPortFrom(a, port), err
}

// PortFrom reads a port, 0 included.
func PortFrom(field string, p uint32) (uint16, error) {
	if p > 65535 {
		return 0, fmt.Errorf("%s: %d is not a port", field, p)
	}
	return uint16(p), nil
}

// AddrPort writes an address and port; nil for an invalid one.
func AddrPort(a netip.AddrPort) *typev1.SocketAddress {
	if !a.IsValid() {
		return nil
	}
	return &typev1.SocketAddress{Ip: a.Addr().Unmap().String(), Port: uint32(a.Port())}
}

// ProtocolFrom reads a protocol.
func ProtocolFrom(p typev1.Protocol) (ax.Protocol, error) {
	switch p {
	case typev1.Protocol_PROTOCOL_TCP:
		return ax.TCP, nil
	case typev1.Protocol_PROTOCOL_UDP:
		return ax.UDP, nil
	}
	return 0, fmt.Errorf("protocol: %s is not one", p)
}

// Protocol writes a protocol.
func Protocol(p ax.Protocol) typev1.Protocol {
	switch p {
	case ax.TCP:
		return typev1.Protocol_PROTOCOL_TCP
	case ax.UDP:
		return typev1.Protocol_PROTOCOL_UDP
	}
	return typev1.Protocol_PROTOCOL_UNSPECIFIED
}

// balancers are the balancer types, in both forms.
var balancers = map[ax.BalancerType]typev1.BalancerType{
	ax.Random:     typev1.BalancerType_BALANCER_TYPE_RANDOM,
	ax.RoundRobin: typev1.BalancerType_BALANCER_TYPE_ROUND_ROBIN,
	ax.LeastConn:  typev1.BalancerType_BALANCER_TYPE_LEAST_CONN,
	ax.Maglev:     typev1.BalancerType_BALANCER_TYPE_MAGLEV,
}

// BalancerFrom reads a balancer type; none means Random.
func BalancerFrom(b typev1.BalancerType) (ax.BalancerType, error) {
	if b == typev1.BalancerType_BALANCER_TYPE_UNSPECIFIED {
		return ax.Random, nil
	}
	for out, p := range balancers {
		if p == b {
			return out, nil
		}
	}
	return 0, fmt.Errorf("balancer: %s is not one", b)
}

// Balancer writes a balancer type; an unknown one as Random.
func Balancer(b ax.BalancerType) typev1.BalancerType {
	if p, ok := balancers[b]; ok {
		return p
	}
	return typev1.BalancerType_BALANCER_TYPE_RANDOM
}

func durationFrom(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
		return 0, fmt.Errorf("%s: %s is not a span of time", field, d.AsDuration())
	}
	return d.AsDuration(), nil
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// optionalAddrFrom reads an address that may be missing.
func optionalAddrFrom(field, s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	return AddrFrom(field, s)
}

func optionalAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func labelsFrom(m map[string]string) (ax.Labels, error) {
	l := ax.Labels(m)
	return l, l.Validate()
}

func timeFrom(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
