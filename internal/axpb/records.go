package axpb

import (
	"errors"
	"fmt"
	"net/netip"

	"appswitch.io/internal/ax"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

// NodeFrom reads a node.
func NodeFrom(p *typev1.Node) (ax.Node, error) {
	if p.GetName() == "" {
		return ax.Node{}, errors.New("node.name: missing")
	}
	addr, err := AddrFrom("node.ip", p.GetIp())
	if err != nil {
		return ax.Node{}, err
	}
	n := ax.Node{Name: ax.NodeName(p.GetName()), Cluster: p.GetCluster(), Addr: addr, Version: p.GetVersion(), Driver: p.GetDriver(), Start: timeFrom(p.GetStartTime()), Draining: p.GetDraining()}
	for _, rp := range p.GetReservedPorts() {
		port, err := PortFrom("node.reserved_ports", rp)
		if err != nil {
			return ax.Node{}, err
		}
		n.ReservedPorts = append(n.ReservedPorts, port)
	}
	if n.Labels, err = labelsFrom(p.GetLabels()); err != nil {
		return ax.Node{}, fmt.Errorf("node.labels: %w", err)
	}
	return n, nil
}

// Node writes a node.
func Node(n ax.Node) *typev1.Node {
	p := &typev1.Node{Name: string(n.Name), Cluster: n.Cluster, Ip: n.Addr.String(), Version: n.Version, Driver: n.Driver, StartTime: timestamp(n.Start), Labels: n.Labels, Draining: n.Draining}
	for _, port := range n.ReservedPorts {
		p.ReservedPorts = append(p.ReservedPorts, uint32(port))
	}
	return p
}

// AppFrom reads an application.
func AppFrom(p *typev1.App) (ax.App, error) {
	if p.GetId() == "" || p.GetNode() == "" {
		return ax.App{}, errors.New("app: id and node are required")
	}
	addr, err := AddrFrom("app.ip", p.GetIp())
	if err != nil {
		return ax.App{}, err
	}
	labels, err := labelsFrom(p.GetLabels())
	if err != nil {
		return ax.App{}, fmt.Errorf("app.labels: %w", err)
	}
	check, err := HealthCheckFrom(p.GetHealthCheck())
	if err != nil {
		return ax.App{}, fmt.Errorf("app.%w", err)
	}
	return ax.App{
		ID: ax.AppID(p.GetId()), Name: p.GetName(), Node: ax.NodeName(p.GetNode()), Cluster: p.GetCluster(), Addr: addr, Driver: p.GetDriver(),
		Labels: labels, PID: int(p.GetPid()), Command: p.GetCommand(), Start: timeFrom(p.GetStartTime()),
		Check: check, Draining: p.GetDraining(),
	}, nil
}

// App writes an application.
func App(a ax.App) *typev1.App {
	return &typev1.App{
		Id: string(a.ID), Name: a.Name, Node: string(a.Node), Cluster: a.Cluster, Ip: a.Addr.String(), Driver: a.Driver,
		Labels: a.Labels, Pid: int32(a.PID), Command: a.Command, StartTime: timestamp(a.Start),
		HealthCheck: HealthCheck(a.Check), Draining: a.Draining,
	}
}

// EndpointFrom reads an endpoint.
func EndpointFrom(p *typev1.Endpoint) (ax.Endpoint, error) {
	proto, err := ProtocolFrom(p.GetProtocol())
	if err != nil {
		return ax.Endpoint{}, fmt.Errorf("endpoint.%w", err)
	}
	service, err := AddrPortFrom("endpoint.service_address", p.GetServiceAddress())
	if err != nil {
		return ax.Endpoint{}, err
	}
	host, err := AddrPortFrom("endpoint.host_address", p.GetHostAddress())
	if err != nil {
		return ax.Endpoint{}, err
	}
	health, err := HealthFrom(p.GetHealth())
	if err != nil {
		return ax.Endpoint{}, fmt.Errorf("endpoint.%w", err)
	}
	e := ax.Endpoint{
		ID: ax.EndpointID(p.GetId()), App: ax.AppID(p.GetAppId()), Node: ax.NodeName(p.GetNode()), Cluster: p.GetCluster(),
		Proto: proto, Service: service, Host: host, Labels: p.GetLabels(), Name: p.GetName(), Stale: p.GetStale(), External: p.GetExternal(),
		Health: health, Draining: p.GetDraining(),
	}
	return e, e.Validate()
}

// Endpoint writes an endpoint.
func Endpoint(e ax.Endpoint) *typev1.Endpoint {
	return &typev1.Endpoint{
		Id: string(e.ID), AppId: string(e.App), Node: string(e.Node), Cluster: e.Cluster, Protocol: Protocol(e.Proto),
		ServiceAddress: AddrPort(e.Service), HostAddress: AddrPort(e.Host), Labels: e.Labels, Name: e.Name, Stale: e.Stale, External: e.External,
		Health: Health(e.Health), Draining: e.Draining,
	}
}

// ClaimFrom reads a claim.
func ClaimFrom(p *typev1.AddressClaim) (ax.Claim, error) {
	addr, err := AddrFrom("address_claim.ip", p.GetIp())
	if err != nil {
		return ax.Claim{}, err
	}
	return ax.Claim{Addr: addr, Name: p.GetName(), Allocated: p.GetAllocated(), Expire: timeFrom(p.GetExpireTime())}, nil
}

// Claim writes a claim.
func Claim(c ax.Claim) *typev1.AddressClaim {
	return &typev1.AddressClaim{Ip: c.Addr.String(), Name: c.Name, Allocated: c.Allocated, ExpireTime: timestamp(c.Expire)}
}

// Addrs writes addresses as text.
func Addrs(in []netip.Addr) []string {
	out := make([]string, len(in))
	for i, a := range in {
		out[i] = a.String()
	}
	return out
}
