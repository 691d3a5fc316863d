// Grpchealth is a gRPC server that has nothing but the health service: of the whole server and of "echo". SIGHUP switches
// "echo" between SERVING and NOT_SERVING.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	listen := flag.String("listen", ":50051", "address")
	flag.Parse()
	status := health.NewServer()
	status.SetServingStatus("echo", healthv1.HealthCheckResponse_SERVING)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		serving := true
		for range hangups {
			serving = !serving
			next := healthv1.HealthCheckResponse_NOT_SERVING
			if serving {
				next = healthv1.HealthCheckResponse_SERVING
			}
			status.SetServingStatus("echo", next)
		}
	}()
	l, err := net.Listen("tcp4", *listen)
	if err == nil {
		s := grpc.NewServer()
		healthv1.RegisterHealthServer(s, status)
		err = s.Serve(l)
	}
	fmt.Fprintln(os.Stderr, "grpchealth:", err)
	os.Exit(1)
}
