// Command nodeagentd carries out the network calls of a node's applications.
package main

import (
	"appswitch.io/internal/service"
	"appswitch.io/internal/version"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/nodeagent"
)

func main() {
	cfg := nodeagent.DefaultConfig()
	cfg.Version = version.Get().String()
	service.Main(service.Spec{
		Name:   "nodeagentd",
		Self:   service.NodeAgent,
		Short:  "carries out the network calls of this node's applications",
		Long:   "One runs on every node, as root, in the host's process-id and network namespaces. Applications outlive it:\nstart it again, and nothing was lost.",
		Config: &cfg,
		Peers:  []service.Peer{service.Registry, service.Router},
		Example: `  nodeagentd --registry-addr 10.0.2.15:6665 --router-addr 10.0.2.15:6670 --dns-addr 10.0.2.15:53
  nodeagentd --node-interface eth0 --ports 40000-49999`,
		Build: func(env service.Env) (service.Service, error) {
			return nodeagent.New(cfg, nodeagent.Deps{
				Log: env.Log, Metrics: env.Metrics, Tracer: env.Tracer,
				Registry: registryv1.NewRegistryServiceClient(env.Conn(service.Registry)),
				Router:   routerv1.NewRouterServiceClient(env.Conn(service.Router)),
			})
		},
	})
}
