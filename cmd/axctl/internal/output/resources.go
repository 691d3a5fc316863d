package output

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Apps are the columns of `get apps`. Ages count from now.
func Apps(now time.Time) Columns[*typev1.App] {
	return Columns[*typev1.App]{
		{Name: "NAME", Value: (*typev1.App).GetName},
		{Name: "APPID", Value: (*typev1.App).GetId},
		{Name: "NODEID", Value: (*typev1.App).GetNode},
		{Name: "CLUSTER", Value: (*typev1.App).GetCluster},
		{Name: "APPIP", Value: (*typev1.App).GetIp},
		{Name: "DRIVER", Value: (*typev1.App).GetDriver},
		{Name: "LABELS", Value: func(a *typev1.App) string { return ax.Labels(a.GetLabels()).String() }},
		{Name: "ZONES", Value: func(a *typev1.App) string { return zones(a.GetLabels()) }},
		{Name: "PID", Wide: true, Value: func(a *typev1.App) string { return number(int64(a.GetPid())) }},
		{Name: "AGE", Wide: true, Value: func(a *typev1.App) string { return age(now, a.GetStartTime()) }},
		{Name: "CHECK", Wide: true, Value: healthCheck},
		{Name: "DRAINING", Wide: true, Value: func(a *typev1.App) string { return yesNo(a.GetDraining()) }},
		{Name: "COMMAND", Wide: true, Value: (*typev1.App).GetCommand},
	}
}

// Servers are the columns of `get servers`.
func Servers(now time.Time) Columns[*typev1.Endpoint] {
	return Columns[*typev1.Endpoint]{
		{Name: "NODEID", Value: (*typev1.Endpoint).GetNode},
		{Name: "CLUSTER", Value: (*typev1.Endpoint).GetCluster},
		{Name: "APPID", Value: (*typev1.Endpoint).GetAppId},
		{Name: "PROTO", Value: func(e *typev1.Endpoint) string { return Proto(e.GetProtocol()) }},
		{Name: "SERVICEADDR", Value: func(e *typev1.Endpoint) string { return Address(e.GetServiceAddress()) }},
		{Name: "IPV4ADDR", Value: func(e *typev1.Endpoint) string { return Address(e.GetHostAddress()) }},
		{Name: "NAME", Wide: true, Value: (*typev1.Endpoint).GetName},
		{Name: "LABELS", Wide: true, Value: func(e *typev1.Endpoint) string { return ax.Labels(e.GetLabels()).String() }},
		{Name: "STALE", Wide: true, Value: func(e *typev1.Endpoint) string { return yesNo(e.GetStale()) }, Tone: func(e *typev1.Endpoint) Tone { return BadIf(e.GetStale()) }},
		{Name: "HEALTH", Wide: true, Value: func(e *typev1.Endpoint) string { return Health(now, e) }, Tone: healthTone},
	}
}

// Sockets are the columns of `get sockets`.
func Sockets() Columns[*nodeagentv1.Socket] {
	type socket = nodeagentv1.Socket
	return Columns[*socket]{
		{Name: "ID", Value: (*socket).GetId},
		{Name: "NODEID", Value: (*socket).GetNode},
		{Name: "APPID", Value: (*socket).GetAppId},
		{Name: "INODE", Value: func(s *socket) string { return strconv.FormatUint(s.GetInode(), 10) }},
		{Name: "PROTO", Value: func(s *socket) string { return Proto(s.GetProtocol()) }},
		{Name: "FLAGS", Value: func(s *socket) string { return strconv.FormatUint(uint64(s.GetFlags()), 10) }},
		{Name: "BINDIP", Value: func(s *socket) string { return Address(s.GetBindAddress()) }},
		{Name: "BACKLOG", Value: func(s *socket) string { return strconv.FormatUint(uint64(s.GetBacklog()), 10) }},
		{Name: "PEER", Wide: true, Value: func(s *socket) string { return Address(s.GetPeerAddress()) }},
		{Name: "IPV4ADDR", Wide: true, Value: func(s *socket) string { return Address(s.GetHostAddress()) }},
	}
}

// Proxies are the columns of `get proxies`.
func Proxies() Columns[*gatewayv1.Proxy] {
	return Columns[*gatewayv1.Proxy]{
		{Name: "ID", Value: func(p *gatewayv1.Proxy) string { return strconv.FormatUint(uint64(p.GetId()), 10) }},
		{Name: "PROTO", Value: func(p *gatewayv1.Proxy) string { return Proto(p.GetProtocol()) }},
		{Name: "LISTENER", Value: func(p *gatewayv1.Proxy) string { return Address(p.GetListener()) }},
		{Name: "DIALERS", Value: func(p *gatewayv1.Proxy) string {
			dialers := make([]string, len(p.GetDialers()))
			for i, d := range p.GetDialers() {
				dialers[i] = Address(d)
			}
			return "[" + strings.Join(dialers, " ") + "]"
		}},
	}
}

// Nodes are the columns of `get nodes`. Ages count from now.
func Nodes(now time.Time) Columns[*typev1.Node] {
	return Columns[*typev1.Node]{
		{Name: "NODEID", Value: (*typev1.Node).GetName},
		{Name: "CLUSTER", Value: (*typev1.Node).GetCluster},
		{Name: "IP", Value: (*typev1.Node).GetIp},
		{Name: "DRIVER", Value: (*typev1.Node).GetDriver},
		{Name: "VERSION", Value: (*typev1.Node).GetVersion},
		{Name: "AGE", Value: func(n *typev1.Node) string { return age(now, n.GetStartTime()) }},
		{Name: "LABELS", Wide: true, Value: func(n *typev1.Node) string { return ax.Labels(n.GetLabels()).String() }},
		{Name: "RESERVEDPORTS", Wide: true, Value: func(n *typev1.Node) string {
			ports := make([]string, len(n.GetReservedPorts()))
			for i, p := range n.GetReservedPorts() {
				ports[i] = strconv.FormatUint(uint64(p), 10)
			}
			return strings.Join(ports, ",")
		}},
		{Name: "DRAINING", Wide: true, Value: func(n *typev1.Node) string { return yesNo(n.GetDraining()) }},
	}
}

// VirtualServices are the columns of `get vservices`.
func VirtualServices(implied func(*typev1.VirtualService) bool) Columns[*typev1.VirtualService] {
	type vservice = typev1.VirtualService
	return Columns[*vservice]{
		{Name: "VSNAME", Value: (*vservice).GetName},
		{Name: "VSTYPE", Value: func(v *vservice) string { return Balancer(v.GetBalancer()) }},
		{Name: "VSIP", Value: (*vservice).GetIp},
		{Name: "VSPORTS", Value: func(v *vservice) string {
			ports := make([]string, len(v.GetPorts()))
			for i, p := range v.GetPorts() {
				ports[i] = fmt.Sprintf("{%d %d}", p.GetVirtualPort(), p.GetBackendPort())
			}
			return "[" + strings.Join(ports, " ") + "]"
		}},
		{Name: "VSBACKENDIPS", Value: func(v *vservice) string { return "[" + strings.Join(v.GetBackends(), " ") + "]" }},
		{Name: "WEIGHTS", Wide: true, Value: weights},
		{Name: "AFFINITY", Wide: true, Value: func(v *vservice) string {
			if v.GetSessionAffinity() == nil {
				return ""
			}
			return v.GetSessionAffinity().AsDuration().String()
		}},
		{Name: "SOURCEIP", Wide: true, Value: (*vservice).GetSourceIp},
		{Name: "IMPLIED", Wide: true, Value: func(v *vservice) string { return yesNo(implied(v)) }},
	}
}

// zones writes the labels that place an application: those of the key zone, as selectors.
func zones(labels map[string]string) string {
	if zone, ok := labels["zone"]; ok {
		return "[zone==" + zone + "]"
	}
	return "[]"
}

// Address writes a socket address, empty if there is none; what is no address is shown as it came.
func Address(a *typev1.SocketAddress) string {
	if a == nil {
		return ""
	}
	ip, err := netip.ParseAddr(a.GetIp())
	if err != nil || a.GetPort() > 65535 {
		return fmt.Sprintf("%s:%d", a.GetIp(), a.GetPort())
	}
	return netip.AddrPortFrom(ip, uint16(a.GetPort())).String()
}

// Proto writes a protocol as "tcp" or "udp".
func Proto(p typev1.Protocol) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PROTOCOL_"))
}

// Balancer writes a balancer type as --lbtype takes it; one of a newer daemon as it came.
func Balancer(b typev1.BalancerType) string {
	known, err := axpb.BalancerFrom(b)
	if err != nil {
		return b.String()
	}
	return known.String()
}

// weights writes the weights of a virtual service's backends, in the order of the backends.
func weights(v *typev1.VirtualService) string {
	if len(v.GetWeights()) == 0 {
		return ""
	}
	out := make([]string, len(v.GetBackends()))
	for i, b := range v.GetBackends() {
		out[i] = strconv.FormatUint(uint64(max(1, v.GetWeights()[b])), 10)
	}
	return "[" + strings.Join(out, " ") + "]"
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// goodIf is the tone of an answer of which one is good and the other bad.
func goodIf(b bool) Tone {
	if b {
		return Good
	}
	return Bad
}

// BadIf is the tone of an answer of which one is bad and the other says nothing.
func BadIf(b bool) Tone {
	if b {
		return Bad
	}
	return Plain
}

func age(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return Duration(now.Sub(t.AsTime()))
}

// Duration writes a span of time in its two largest units, such as "3d4h"; a negative one (clocks differ) as "0s".
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

// Candidates are the columns of the servers that `explain` looked at.
func Candidates() Columns[*routerv1.Candidate] {
	type candidate = routerv1.Candidate
	return Columns[*candidate]{
		{Name: "SERVICEADDR", Value: func(c *candidate) string { return Address(c.GetEndpoint().GetServiceAddress()) }},
		{Name: "IPV4ADDR", Value: func(c *candidate) string { return Address(c.GetEndpoint().GetHostAddress()) }},
		{Name: "NODEID", Value: func(c *candidate) string { return c.GetEndpoint().GetNode() }},
		{Name: "APPID", Value: func(c *candidate) string { return c.GetEndpoint().GetAppId() }},
		{Name: "LABELS", Value: func(c *candidate) string { return ax.Labels(c.GetEndpoint().GetLabels()).String() }},
		{Name: "ELIGIBLE", Value: func(c *candidate) string { return yesNo(c.GetEligible()) }, Tone: func(c *candidate) Tone { return goodIf(c.GetEligible()) }},
		{Name: "REASON", Value: func(c *candidate) string {
			if audit := c.GetAuditPolicy(); audit != "" {
				return c.GetReason() + ", audit: " + audit
			}
			return c.GetReason()
		}},
		{Name: "HEALTH", Value: func(c *candidate) string { return Health(time.Now(), c.GetEndpoint()) }, Tone: func(c *candidate) Tone { return healthTone(c.GetEndpoint()) }},
	}
}
