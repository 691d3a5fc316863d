// Package gateway is the door of a node: the REST API for its users, and the list of what it relays and exposes.
//
// Its invariant: a backend that is away makes calls fail quickly and clearly, never hang, and never stops the gateway.
// Start reading at [New]; the HTTP side is in internal/rest, the list in internal/doors.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"appswitch.io/internal/axpb"
	"appswitch.io/internal/rpc"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/gateway/internal/doors"
	"appswitch.io/services/gateway/internal/rest"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
)

// Config is what the user chooses about a gateway.
type Config struct {
	RESTPort   int
	RESTListen []string // IP addresses; other than loopback needs Deps.TLS
}

// DefaultConfig returns what holds without flags.
func DefaultConfig() Config { return Config{RESTPort: 6664, RESTListen: []string{"127.0.0.1"}} }

// Flags declares the options.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.IntVar(&c.RESTPort, "rest-port", c.RESTPort, "port of the REST API")
	fs.StringSliceVar(&c.RESTListen, "rest-listen", c.RESTListen, "IP addresses of the REST API: loopback in plaintext, others with --tls and client certificates")
}

// Validate reports an option that can't work.
func (c Config) Validate() error {
	if c.RESTPort < 1 || c.RESTPort > 65535 {
		return fmt.Errorf("--rest-port %d: want a port from 1 to 65535", c.RESTPort)
	}
	if len(c.RESTListen) == 0 {
		return errors.New("--rest-listen: want at least one IP address, such as 127.0.0.1")
	}
	_, err := c.addresses()
	return err
}

func (c Config) addresses() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, a := range c.RESTListen {
		ip, err := netip.ParseAddr(strings.TrimSpace(a))
		if err != nil {
			return nil, fmt.Errorf("--rest-listen %q: want an IP address, such as 127.0.0.1", a)
		}
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(c.RESTPort)))
	}
	return out, nil
}

// Deps is what a gateway works with.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Gatherer prometheus.Gatherer // what GET /metrics shows; nil: no /metrics
	Tracer   opentracing.Tracer
	TLS      rpc.TLS // for REST beyond loopback

	Registry  registryv1.RegistryServiceClient
	NodeAgent nodeagentv1.NodeAgentServiceClient
	Router    routerv1.RouterServiceClient
}

// Service is a gateway.
type Service struct {
	doors *doors.Table
	rest  *rest.Server
}

// New builds a gateway; nothing runs yet.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Registry == nil || deps.NodeAgent == nil || deps.Router == nil {
		return nil, errors.New("gateway: Deps needs clients of registry, node agent and router")
	}
	table, err := doors.New(deps.Metrics)
	if err != nil {
		return nil, err
	}
	addresses, err := cfg.addresses()
	if err != nil {
		return nil, err
	}
	s := &Service{doors: table}
	rc := rest.Config{
		Log: deps.Log, Metrics: deps.Metrics, Gatherer: deps.Gatherer, Tracer: deps.Tracer,
		Addresses: addresses,
		Registry:  deps.Registry, NodeAgent: deps.NodeAgent, Router: deps.Router, Gateway: api{doors: table},
	}
	for _, a := range addresses {
		if !a.Addr().IsLoopback() && !deps.TLS.Enabled {
			return nil, fmt.Errorf("--rest-listen %s: anyone who reaches that address could change the cluster: use --tls, or a loopback address", a.Addr())
		}
	}
	if deps.TLS.Enabled {
		if rc.TLS, err = rpc.ServerTLS(deps.TLS, deps.Log, "h2", "http/1.1"); err != nil {
			return nil, err
		}
	}
	if s.rest, err = rest.New(rc); err != nil {
		return nil, err
	}
	return s, nil
}

// Register puts GatewayService on a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	gatewayv1.RegisterGatewayServiceServer(r, api{doors: s.doors})
}

// Run serves REST until ctx ends.
func (s *Service) Run(ctx context.Context) error { return s.rest.Run(ctx) }

// api is GatewayService over the list of doors.
type api struct {
	gatewayv1.UnimplementedGatewayServiceServer
	doors *doors.Table
}

// ListProxies implements gatewayv1.GatewayServiceServer.
func (a api) ListProxies(context.Context, *gatewayv1.ListProxiesRequest) (*gatewayv1.ListProxiesResponse, error) {
	resp := &gatewayv1.ListProxiesResponse{}
	for _, p := range a.doors.Proxies() {
		out := &gatewayv1.Proxy{Id: p.ID, Protocol: axpb.Protocol(p.Protocol), Listener: axpb.AddrPort(p.Listener)}
		for _, d := range p.Dialers {
			out.Dialers = append(out.Dialers, axpb.AddrPort(d))
		}
		resp.Proxies = append(resp.Proxies, out)
	}
	return resp, nil
}

// ListExposes implements gatewayv1.GatewayServiceServer.
func (a api) ListExposes(context.Context, *gatewayv1.ListExposesRequest) (*gatewayv1.ListExposesResponse, error) {
	resp := &gatewayv1.ListExposesResponse{}
	for _, e := range a.doors.Exposes() {
		resp.Exposes = append(resp.Exposes, &gatewayv1.Expose{
			Protocol: axpb.Protocol(e.Protocol), NodeAddress: axpb.AddrPort(e.Node), ServiceAddress: axpb.AddrPort(e.Service),
		})
	}
	return resp, nil
}
