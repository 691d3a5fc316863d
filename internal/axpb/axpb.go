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

// BalancerFrom reads a balancer type; none means Random.
func BalancerFrom(b typev1.BalancerType) (ax.BalancerType, error) {
	switch b {
	case typev1.BalancerType_BALANCER_TYPE_UNSPECIFIED, typev1.BalancerType_BALANCER_TYPE_RANDOM:
		return ax.Random, nil
	case typev1.BalancerType_BALANCER_TYPE_ROUND_ROBIN:
		return ax.RoundRobin, nil
	}
	return 0, fmt.Errorf("balancer: %s is not one", b)
}

// Balancer writes a balancer type.
func Balancer(b ax.BalancerType) typev1.BalancerType {
	if b == ax.RoundRobin {
		return typev1.BalancerType_BALANCER_TYPE_ROUND_ROBIN
	}
	return typev1.BalancerType_BALANCER_TYPE_RANDOM
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
