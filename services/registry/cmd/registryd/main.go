// Command registryd keeps the service table, as a daemon of its own.
//
// It holds no state of its own beyond the embedded etcd's, if it runs one. Start reading at package registry.
package main

import (
	"appswitch.io/internal/service"
	"appswitch.io/services/registry"
)

func main() {
	cfg := registry.DefaultConfig()
	service.Main(service.Spec{
		Name:  "registryd",
		Self:  service.Registry,
		Short: "keep the service table of an AppSwitch cluster in etcd",
		Long: `Keeps the table of nodes, applications, services and policies, and feeds its changes to everyone who watches.
Without --etcd-endpoints it runs an etcd server of its own in --state-dir. With them it is stateless: run as many of it
as you like in front of one etcd cluster. It may start before etcd and outlive it: meanwhile watchers keep what they have.`,
		Example: `  registryd
  registryd --state-dir ~/registry --etcd-listen 127.0.0.1
  registryd --listen 10.0.2.15:6665 --tls --etcd-endpoints 10.0.2.15:2379,10.0.2.16:2379,10.0.2.17:2379`,
		Config: &cfg,
		Build: func(env service.Env) (service.Service, error) {
			return registry.New(cfg, registry.Deps{Log: env.Log, Metrics: env.Metrics, Tracer: env.Tracer})
		},
	})
}
