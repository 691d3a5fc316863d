// Command fill puts the endpoints of a node that does not exist into the service table: `fill -registry 127.0.0.1:6665 -count 10000`.
//
// Its invariant: it writes as a node agent does, through the registry's API, under a lease, which it gives back at SIGTERM.
// The endpoints are named n0, n1 and so on, each at an address of its own. Start reading at main.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	batch = 128 // changes of one transaction
	node  = "filled"
	host  = "10.77.0.3"

	revokeTimeout = 8 * time.Second
)

func main() {
	registry := flag.String("registry", "127.0.0.1:6665", "gRPC address of the registry")
	count := flag.Int("count", 10_000, "endpoints")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fill(ctx, *registry, *count); err != nil {
		fmt.Fprintln(os.Stderr, "fill:", err)
		os.Exit(1)
	}
}

func fill(ctx context.Context, registry string, count int) error {
	conn, err := grpc.NewClient(registry, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := registryv1.NewRegistryServiceClient(conn)
	lease, err := client.GrantLease(ctx, &registryv1.GrantLeaseRequest{
		Node: &typev1.Node{Name: node, Cluster: "appswitch", Ip: host, Version: "bench", Driver: "user"}, Ttl: durationpb.New(time.Hour),
	})
	if err != nil {
		return err
	}
	for i := 0; i < count; i += batch {
		request := &registryv1.WriteRequest{LeaseId: lease.GetLeaseId()}
		for j := i; j < min(i+batch, count); j++ {
			record := &registryv1.Record{Value: &registryv1.Record_Endpoint{Endpoint: endpoint(j)}}
			request.Changes = append(request.Changes, &registryv1.Change{Op: &registryv1.Change_Put{Put: record}})
		}
		if _, err := client.Write(ctx, request); err != nil {
			return err
		}
	}
	fmt.Println("filled")
	<-ctx.Done()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	_, err = client.RevokeLease(late, &registryv1.RevokeLeaseRequest{LeaseId: lease.GetLeaseId()})
	return err
}

func endpoint(i int) *typev1.Endpoint {
	app, ip, port := fmt.Sprintf("%08x", i), fmt.Sprintf("100.64.%d.%d", i>>8, i&255), uint32(40000+i%20000)
	return &typev1.Endpoint{
		Id:    fmt.Sprintf("%s/tcp/%s:80/%d", app, ip, port),
		AppId: app, Node: node, Cluster: "appswitch", Protocol: typev1.Protocol_PROTOCOL_TCP,
		ServiceAddress: &typev1.SocketAddress{Ip: ip, Port: 80}, HostAddress: &typev1.SocketAddress{Ip: host, Port: port},
		Labels: map[string]string{"zone": "default"}, Name: fmt.Sprintf("n%d", i),
	}
}
