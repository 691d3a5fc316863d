// Command grpcecho is a gRPC server and client of the service e2e.Echo, which grpc.py speaks, too.
//
// `grpcecho serve ADDRESS` answers Echo, a call of one message each way, with what it got, and Chat, a stream both ways,
// with every message; Peer answers with the addresses of the connection as the server sees them. `grpcecho call ADDRESS`
// tries all of it and prints what Peer said. Its invariant: the client ends with success only if all came back as it was
// sent. Start reading at main.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	maxMessage = 8 << 20
	streams    = 50
	messages   = 40 // of each stream
	limit      = 40 * time.Second
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: grpcecho serve|call ADDRESS")
		os.Exit(2)
	}
	run := map[string]func(string) error{"serve": serve, "call": call}[os.Args[1]]
	if err := run(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "grpcecho:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	server.RegisterService(&service, nil)
	return server.Serve(listener)
}

// service is what a generated file would hold.
var service = grpc.ServiceDesc{
	ServiceName: "e2e.Echo",
	Methods: []grpc.MethodDesc{
		{MethodName: "Echo", Handler: unary(func(_ context.Context, in []byte) []byte { return in })},
		{MethodName: "Peer", Handler: unary(func(ctx context.Context, _ []byte) []byte {
			p, _ := peer.FromContext(ctx)
			return fmt.Appendf(nil, "local=%v remote=%v", p.LocalAddr, p.Addr)
		})},
	},
	Streams: []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true}},
}

func unary(answer func(context.Context, []byte) []byte) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in wrapperspb.BytesValue
		if err := decode(&in); err != nil {
			return nil, err
		}
		return wrapperspb.Bytes(answer(ctx, in.GetValue())), nil
	}
}

func chat(_ any, stream grpc.ServerStream) error {
	for {
		var in wrapperspb.BytesValue
		if err := stream.RecvMsg(&in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&in); err != nil {
			return err
		}
	}
}

func call(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)))
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, size := range []int{0, 1, 100_000, 4_000_000} {
		data := bytes.Repeat([]byte{byte(size >> 3), 7}, size/2)
		var back wrapperspb.BytesValue
		if err := conn.Invoke(ctx, "/e2e.Echo/Echo", wrapperspb.Bytes(data), &back); err != nil {
			return err
		}
		if !bytes.Equal(back.GetValue(), data) {
			return fmt.Errorf("of %d bytes others came back", len(data))
		}
	}
	failures := make(chan error, streams)
	for i := range streams {
		go func() { failures <- talk(ctx, conn, byte(i)) }()
	}
	for range streams {
		err = errors.Join(err, <-failures)
	}
	var seen wrapperspb.BytesValue
	if err := errors.Join(err, conn.Invoke(ctx, "/e2e.Echo/Peer", wrapperspb.Bytes(nil), &seen)); err != nil {
		return err
	}
	fmt.Printf("%s\n", seen.GetValue())
	return nil
}

// talk sends a message and waits for it, over and over on one stream.
func talk(ctx context.Context, conn *grpc.ClientConn, id byte) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/e2e.Echo/Chat")
	if err != nil {
		return err
	}
	for n := range messages {
		data := bytes.Repeat([]byte{id, byte(n)}, 500*n)
		if err := stream.SendMsg(wrapperspb.Bytes(data)); err != nil {
			return err
		}
		var back wrapperspb.BytesValue
		if err := stream.RecvMsg(&back); err != nil {
			return err
		}
		if !bytes.Equal(back.GetValue(), data) {
			return fmt.Errorf("stream %d: another message %d came back", id, n)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("stream %d ends with %w", id, err)
	}
	return nil
}
