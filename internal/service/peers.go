package service

import (
	"context"
	"fmt"
	"strings"

	"appswitch.io/internal/rpc"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// Peer is one of the daemons, as the others find it.
type Peer string

// The daemons.
const (
	Registry  Peer = "registry"
	Router    Peer = "router"
	Resolver  Peer = "resolver"
	NodeAgent Peer = "nodeagent"
	Gateway   Peer = "gateway"
)

// ports are the default gRPC ports; metrics are on the next one. All daemons of a node fit side by side.
var ports = map[Peer]int{Registry: 6665, Router: 6670, Resolver: 6675, NodeAgent: 6680, Gateway: 6685}

// Addr returns the default gRPC address of a daemon.
func (p Peer) Addr() string { return fmt.Sprintf("127.0.0.1:%d", ports[p]) }

// MetricsAddr returns the default address of its metrics.
func (p Peer) MetricsAddr() string { return fmt.Sprintf("127.0.0.1:%d", ports[p]+1) }

// peerConfig holds where the daemons are that this one calls.
type peerConfig map[Peer]*string

// newPeerConfig declares --registry-addr and its like.
func newPeerConfig(peers []Peer, fs *pflag.FlagSet) peerConfig {
	pc := peerConfig{}
	for _, p := range peers {
		usage := fmt.Sprintf("gRPC address of %sd, HOST:PORT, several separated by commas; it may start later", p)
		pc[p] = fs.String(string(p)+"-addr", p.Addr(), usage)
	}
	return pc
}

// dial connects to all of them, in the background.
func (pc peerConfig) dial(cfg rpc.ClientConfig) (conns map[Peer]*grpc.ClientConn, closeAll func(), err error) {
	conns = map[Peer]*grpc.ClientConn{}
	closeAll = func() {
		for _, c := range conns {
			_ = c.Close() // fails only when closed before
		}
	}
	for p, addr := range pc {
		if conns[p], err = rpc.Dial(strings.TrimSpace(*addr), cfg); err != nil {
			delete(conns, p)
			closeAll()
			return nil, nil, fmt.Errorf("--%s-addr: %w", p, err)
		}
	}
	return conns, closeAll, nil
}

// undeclared stands for a peer that the daemon didn't list in Spec.Peers: every call says so.
type undeclared struct{ peer Peer }

func (u undeclared) err() error {
	return rpc.Errorf(codes.Unimplemented, "this program has no --%s-addr: list the peer in its service.Spec", u.peer)
}

// Invoke implements grpc.ClientConnInterface.
func (u undeclared) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return u.err()
}

// NewStream implements grpc.ClientConnInterface.
func (u undeclared) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, u.err()
}
