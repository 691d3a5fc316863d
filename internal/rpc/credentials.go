package rpc

import (
	"context"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
)

// channel is the transport security of both ends: TLS with the files of the moment, or plaintext without files.
// Connections within the process (see [Pipe]) never leave it and are always plain.
type channel struct {
	keys *keyring // nil: plaintext
}

func newChannel(t TLS, log *slog.Logger) (channel, error) {
	if !t.Enabled {
		return channel{}, t.Validate()
	}
	k, err := newKeyring(t, log)
	return channel{keys: k}, err
}

func (c channel) plain(conn net.Conn) bool {
	return c.keys == nil || conn.LocalAddr().Network() == pipeNetwork
}

// ClientHandshake implements credentials.TransportCredentials.
func (c channel) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c.plain(conn) {
		return insecure.NewCredentials().ClientHandshake(ctx, authority, conn)
	}
	return credentials.NewTLS(c.keys.client()).ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (c channel) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c.plain(conn) {
		return insecure.NewCredentials().ServerHandshake(conn)
	}
	return credentials.NewTLS(c.keys.server()).ServerHandshake(conn)
}

// Info implements credentials.TransportCredentials.
func (c channel) Info() credentials.ProtocolInfo {
	if c.keys == nil {
		return insecure.NewCredentials().Info()
	}
	return credentials.NewTLS(nil).Info()
}

// Clone implements credentials.TransportCredentials.
func (c channel) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials; names come from the target.
func (c channel) OverrideServerName(string) error { return nil }

// trustedPeer reports whether the caller may administer: it has shown a certificate of our CA, or it is on this
// machine (in this process, over loopback, or from the address that it called).
func trustedPeer(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		return len(info.State.VerifiedChains) > 0
	}
	remote, ok := p.Addr.(*net.TCPAddr)
	if !ok {
		return p.Addr.Network() == pipeNetwork || p.Addr.Network() == "unix"
	}
	local, ok := p.LocalAddr.(*net.TCPAddr)
	return remote.IP.IsLoopback() || ok && remote.IP.Equal(local.IP)
}
