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
	n := ax.Node{Name: ax.NodeName(p.GetName()), Cluster: p.GetCluster(), Addr: addr, Version: p.GetVersion(), Driver: p.GetDriver(), Start: timeFrom(p.GetStartTime())}
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
	p := &typev1.Node{Name: string(n.Name), Cluster: n.Cluster, Ip: n.Addr.String(), Version: n.Version, Driver: n.Driver, StartTime: timestamp(n.Start), Labels: n.Labels}
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
	return ax.App{
		ID: ax.AppID(p.GetId()), Name: p.GetName(), Node: ax.NodeName(p.GetNode()), Cluster: p.GetCluster(), Addr: addr, Driver: p.GetDriver(),
		Labels: labels, PID: int(p.GetPid()), Command: p.GetCommand(), Start: timeFrom(p.GetStartTime()),
	}, nil
}

// App writes an application.
func App(a ax.App) *typev1.App {
	return &typev1.App{
		Id: string(a.ID), Name: a.Name, Node: string(a.Node), Cluster: a.Cluster, Ip: a.Addr.String(), Driver: a.Driver,
		Labels: a.Labels, Pid: int32(a.PID), Command: a.Command, StartTime: timestamp(a.Start),
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
	e := ax.Endpoint{
		ID: ax.EndpointID(p.GetId()), App: ax.AppID(p.GetAppId()), Node: ax.NodeName(p.GetNode()), Cluster: p.GetCluster(),
		Proto: proto, Service: service, Host: host, Labels: p.GetLabels(), Name: p.GetName(), Stale: p.GetStale(),
	}
	return e, e.Validate()
}

// Endpoint writes an endpoint.
func Endpoint(e ax.Endpoint) *typev1.Endpoint {
	return &typev1.Endpoint{
		Id: string(e.ID), AppId: string(e.App), Node: string(e.Node), Cluster: e.Cluster, Protocol: Protocol(e.Proto),
		ServiceAddress: AddrPort(e.Service), HostAddress: AddrPort(e.Host), Labels: e.Labels, Name: e.Name, Stale: e.Stale,
	}
}

// VirtualServiceFrom reads a virtual service; its address may be missing.
func VirtualServiceFrom(p *typev1.VirtualService) (ax.VirtualService, error) {
	if p.GetName() == "" {
		return ax.VirtualService{}, errors.New("virtual_service.name: missing")
	}
	b, err := BalancerFrom(p.GetBalancer())
	if err != nil {
		return ax.VirtualService{}, fmt.Errorf("virtual_service.%w", err)
	}
	v := ax.VirtualService{Name: p.GetName(), Balancer: b}
	if p.GetIp() != "" {
		if v.Addr, err = AddrFrom("virtual_service.ip", p.GetIp()); err != nil {
			return ax.VirtualService{}, err
		}
	}
	for _, m := range p.GetPorts() {
		vp, err1 := PortFrom("virtual_service.ports.virtual_port", m.GetVirtualPort())
		bp, err2 := PortFrom("virtual_service.ports.backend_port", m.GetBackendPort())
		if err := errors.Join(err1, err2); err != nil {
			return ax.VirtualService{}, err
		}
		if vp == 0 || bp == 0 {
			return ax.VirtualService{}, errors.New("virtual_service.ports: port 0")
		}
		v.Ports = append(v.Ports, ax.PortMapping{Virtual: vp, Backend: bp})
	}
	for _, s := range p.GetBackends() {
		a, err := AddrFrom("virtual_service.backends", s)
		if err != nil {
			return ax.VirtualService{}, err
		}
		v.Backends = append(v.Backends, a)
	}
	return v, nil
}

// VirtualService writes a virtual service.
func VirtualService(v ax.VirtualService) *typev1.VirtualService {
	p := &typev1.VirtualService{Name: v.Name, Balancer: Balancer(v.Balancer)}
	if v.Addr.IsValid() {
		p.Ip = v.Addr.String()
	}
	for _, m := range v.Ports {
		p.Ports = append(p.Ports, &typev1.PortMapping{VirtualPort: uint32(m.Virtual), BackendPort: uint32(m.Backend)})
	}
	for _, a := range v.Backends {
		p.Backends = append(p.Backends, a.String())
	}
	return p
}

// PolicyFrom reads a policy.
func PolicyFrom(p *typev1.Policy) (ax.Policy, error) {
	if p.GetName() == "" {
		return ax.Policy{}, errors.New("policy.name: missing")
	}
	out := ax.Policy{Name: p.GetName(), From: p.GetFrom(), To: p.GetTo()}
	switch p.GetAction() {
	case typev1.PolicyAction_POLICY_ACTION_ALLOW:
		out.Action = ax.PolicyAllow
	case typev1.PolicyAction_POLICY_ACTION_DENY:
		out.Action = ax.PolicyDeny
	default:
		return ax.Policy{}, fmt.Errorf("policy.action: %s is not one", p.GetAction())
	}
	for _, s := range []ax.Labels{out.From, out.To} {
		if err := s.Validate(); err != nil {
			return ax.Policy{}, fmt.Errorf("policy selector: %w", err)
		}
	}
	for _, n := range p.GetPorts() {
		port, err := PortFrom("policy.ports", n)
		if err != nil {
			return ax.Policy{}, err
		}
		out.Ports = append(out.Ports, port)
	}
	return out, nil
}

// Policy writes a policy.
func Policy(in ax.Policy) *typev1.Policy {
	p := &typev1.Policy{Name: in.Name, From: in.From, To: in.To, Action: typev1.PolicyAction_POLICY_ACTION_ALLOW}
	if in.Action == ax.PolicyDeny {
		p.Action = typev1.PolicyAction_POLICY_ACTION_DENY
	}
	for _, n := range in.Ports {
		p.Ports = append(p.Ports, uint32(n))
	}
	return p
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
