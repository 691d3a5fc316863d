// Gatewayd is the gateway as a daemon of its own.
package main

import (
	"appswitch.io/internal/service"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/gateway"
)

func main() {
	cfg := gateway.DefaultConfig()
	service.Main(service.Spec{
		Name: "gatewayd", Self: service.Gateway, Config: &cfg,
		Short: "serves the REST API of AppSwitch and the doors of a node",
		Example: `  gatewayd
  gatewayd --rest-port 8064 --registry-addr 10.0.2.15:6665,10.0.2.16:6665
  curl http://127.0.0.1:6664/v1/apps`,
		Peers: []service.Peer{service.Registry, service.NodeAgent, service.Router},
		Build: func(env service.Env) (service.Service, error) {
			return gateway.New(cfg, gateway.Deps{
				Log: env.Log, Metrics: env.Metrics, Gatherer: env.Metrics, Tracer: env.Tracer, TLS: env.TLS,
				Registry:  registryv1.NewRegistryServiceClient(env.Conn(service.Registry)),
				NodeAgent: nodeagentv1.NewNodeAgentServiceClient(env.Conn(service.NodeAgent)),
				Router:    routerv1.NewRouterServiceClient(env.Conn(service.Router)),
			})
		},
	})
}
