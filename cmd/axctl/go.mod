module appswitch.io/cmd/axctl

go 1.26.0

require (
	appswitch.io/internal v0.0.0
	appswitch.io/proto v0.0.0
	appswitch.io/services/gateway v0.0.0
	appswitch.io/services/nodeagent v0.0.0
	appswitch.io/services/registry v0.0.0
	appswitch.io/services/resolver v0.0.0
	appswitch.io/services/router v0.0.0
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.30.0
	github.com/opentracing/opentracing-go v1.2.0
	github.com/prometheus/client_golang v1.25.0
	github.com/rogpeppe/go-internal v1.16.0
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.1.0
	github.com/spf13/viper v1.21.0
	go.uber.org/goleak v1.3.0
	golang.org/x/sync v0.24.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	sigs.k8s.io/yaml v1.6.0
)

require (
	github.com/clipperhouse/uax29/v2 v2.2.0 // indirect
	github.com/mattn/go-runewidth v0.0.24 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace appswitch.io/proto => ../../proto

replace appswitch.io/internal => ../../internal

replace appswitch.io/services/registry => ../../services/registry

replace appswitch.io/services/resolver => ../../services/resolver

replace appswitch.io/services/router => ../../services/router

replace appswitch.io/services/nodeagent => ../../services/nodeagent

replace appswitch.io/services/gateway => ../../services/gateway
