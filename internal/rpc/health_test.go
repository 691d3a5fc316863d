package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestEachServiceHasItsHealth(t *testing.T) {
	l, dialPipe := Pipe()
	start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{}, l)
	conn, err := dialPipe(ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for service, want := range map[string]codes.Code{
		"": codes.OK, "appswitch.gateway.v1.GatewayService": codes.OK, "appswitch.registry.v1.RegistryService": codes.OK,
		"appswitch.router.v1.RouterService": codes.NotFound,
	} {
		h, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if status.Code(err) != want || err == nil && h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, h, err)
		}
	}
}
