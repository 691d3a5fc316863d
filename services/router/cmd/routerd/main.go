// Command routerd turns the service table into routes and streams them to the nodes.
package main

import (
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"

	"appswitch.io/internal/service"
	"appswitch.io/services/router"
)

func main() {
	cfg := router.DefaultConfig()
	service.Main(service.Spec{
		Name:   "routerd",
		Self:   service.Router,
		Short:  "turns AppSwitch's service table into routes and streams them to the nodes",
		Long:   "Any number may run side by side. Without the registry it goes on serving what it knows.",
		Config: &cfg,
		Peers:  []service.Peer{service.Registry},
		Example: `  routerd --registry-addr 10.0.2.15:6665
  routerd --listen 10.0.2.15:6670 --tls --tls-ca-cert ca.pem --tls-cert node.pem --tls-key node-key.pem`,
		Build: func(env service.Env) (service.Service, error) {
			return router.New(cfg, router.Deps{
				Log: env.Log, Metrics: env.Metrics, Tracer: env.Tracer,
				Registry: registryv1.NewRegistryServiceClient(env.Conn(service.Registry)),
			})
		},
	})
}
