// Package grpctest lets tests take a gRPC server away from its clients and bring it back, all in memory.
//
// Invariant: everything ends with the test, and nothing but the test's own time passes, so that it works within
// testing/synctest. Start reading at [Start].
package grpctest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

const pipeBuffer = 256 << 10

// errAway is what a client gets that dials while the server is away.
var errAway = errors.New("the server is away")

// Server is a gRPC server that can go away and come back.
type Server struct {
	t        testing.TB
	register func(grpc.ServiceRegistrar)

	// mu guards everything below.
	mu       sync.Mutex
	listener *bufconn.Listener // nil while away
	server   *grpc.Server
	served   chan error
}

// Start starts a server and returns it with a connection to it that reconnects at least once a second.
func Start(t testing.TB, register func(grpc.ServiceRegistrar)) (*Server, *grpc.ClientConn) {
	t.Helper()
	s := &Server{t: t, register: register}
	s.Return()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(s.dial),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`), // reconnects by itself
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Leave()
	})
	return s, conn
}

func (s *Server) dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return nil, errAway
	}
	return l.DialContext(ctx)
}

// Leave stops the server at once: calls are cut off.
func (s *Server) Leave() {
	s.mu.Lock()
	server, served := s.server, s.served
	away := s.listener == nil
	s.listener = nil
	s.mu.Unlock()
	if away {
		return
	}
	server.Stop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		s.t.Errorf("serve: %v", err)
	}
}

// Return starts the server again.
func (s *Server) Return() {
	s.mu.Lock()
	defer s.mu.Unlock()
	listener, server, served := bufconn.Listen(pipeBuffer), grpc.NewServer(), make(chan error, 1)
	s.register(server)
	go func() { served <- server.Serve(listener) }()
	s.listener, s.server, s.served = listener, server, served
}
