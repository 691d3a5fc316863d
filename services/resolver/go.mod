module appswitch.io/services/resolver

go 1.26.0

require (
	appswitch.io/internal v0.0.0
	appswitch.io/proto v0.0.0
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.30.0
	github.com/miekg/dns v1.1.73
	github.com/opentracing/opentracing-go v1.2.0
	github.com/prometheus/client_golang v1.25.0
	github.com/spf13/pflag v1.1.0
	github.com/spf13/viper v1.21.0
	go.uber.org/goleak v1.3.0
	golang.org/x/net v0.62.0
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

replace appswitch.io/proto => ../../proto

replace appswitch.io/internal => ../../internal
