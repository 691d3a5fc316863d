// Command resolverd answers for the names of AppSwitch's service table, over DNS and gRPC.
package main

import (
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"

	"appswitch.io/internal/service"
	"appswitch.io/services/resolver"
)

func main() {
	cfg := resolver.DefaultConfig()
	service.Main(service.Spec{
		Name:  "resolverd",
		Self:  service.Resolver,
		Short: "answers for the names of AppSwitch's service table, over DNS and gRPC",
		Long: "Without the registry it goes on answering from the last table. All clients get names of the table; queries for\n" +
			"other names are forwarded for this node's own applications, and for those of --dns-allow-forward.",
		Config: &cfg,
		Peers:  []service.Peer{service.Registry},
		Example: `  resolverd --registry-addr 10.0.2.15:6665 --dns-listen 10.0.2.15,127.0.0.1
  resolverd --dns-port 5353 --dns-servers 8.8.8.8,127.0.0.1:5533`,
		Build: func(env service.Env) (service.Service, error) {
			return resolver.New(cfg, resolver.Deps{
				Log: env.Log, Metrics: env.Metrics, Tracer: env.Tracer,
				Registry: registryv1.NewRegistryServiceClient(env.Conn(service.Registry)),
			})
		},
	})
}
