package nodeagent

import (
	"encoding/binary"
	"errors"
	"fmt"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"appswitch.io/services/nodeagent/internal/attach"
	"appswitch.io/services/nodeagent/internal/server"
	"appswitch.io/services/nodeagent/internal/sockdiag"
	"appswitch.io/services/nodeagent/internal/socktab"
	"github.com/google/uuid"
)

// view is what the gRPC service shows of an agent.
type view struct{ s *Service }

func (v view) Apps() []ax.App { return v.s.manager.List() }

// Sockets lists the sockets of applications. The kernel knows inode and state, the table whose they are and what they
// stand for. What has no inode any more is closed by its application, and is left out.
func (v view) Sockets(app ax.AppID) ([]*nodeagentv1.Socket, error) {
	inodes := map[uint64]uint64{}
	if err := sockdiag.Dump(func(d sockdiag.Sock) { inodes[d.Cookie] = d.Inode }); err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	var out []*nodeagentv1.Socket
	for _, s := range v.s.table.List(app) {
		if inodes[s.Cookie] == 0 {
			continue
		}
		out = append(out, &nodeagentv1.Socket{
			Id: v.socketID(s.Cookie), Node: string(v.s.node.Name), AppId: string(s.App), Inode: inodes[s.Cookie], Protocol: axpb.Protocol(s.Proto),
			BindAddress: axpb.AddrPort(s.Local), PeerAddress: axpb.AddrPort(s.Peer), Backlog: uint32(max(s.Backlog, 0)), HostAddress: axpb.AddrPort(s.Host),
		})
	}
	return out, nil
}

// socketID makes a UUID of a cookie: it lives as long as the socket, over restarts of the agent (RFC 9562, version 5).
func (v view) socketID(cookie uint64) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, binary.BigEndian.AppendUint64([]byte(v.s.node.Name), cookie)).String()
}

func (v view) Status() server.Status {
	stats := v.s.publisher.Stats()
	st := server.Status{
		Node: v.s.publisher.Node(), Apps: len(v.s.manager.List()), Sockets: v.s.table.Len(),
		RouterConnected: v.s.routes.Connected(), RegistryConnected: stats.LeaseAlive, PendingWrites: stats.Pending,
	}
	if snapshot := v.s.routes.Snapshot(); snapshot != nil {
		st.SnapshotRevision, st.SnapshotAge = snapshot.Revision(), v.s.routes.Age()
	}
	return st
}

func (v view) Ejections() ([]route.Ejection, int) {
	return v.s.outliers.List(), v.s.outliers.Config().Share
}

func (v view) Drain(app ax.AppID, on bool) error {
	err := v.s.manager.Drain(app, on)
	if errors.Is(err, attach.ErrNoApp) {
		return fmt.Errorf("%w: %w", server.ErrNotHere, err)
	}
	return err
}

// Drains counts the connections that draining applications still have: those that they have accepted and that are open,
// and those that wait in the kernel to be accepted. What an application connects to itself on its loopback is its own
// business.
func (v view) Drains() (server.Drains, error) {
	drains, node := v.s.manager.Drains()
	out := server.Drains{Node: node}
	if len(drains) == 0 {
		return out, nil
	}
	waiting := map[uint64]uint32{}
	if err := sockdiag.Dump(func(d sockdiag.Sock) {
		if d.State == sockdiag.Listen {
			waiting[d.Cookie] = d.Queue
		}
	}); err != nil {
		return out, fmt.Errorf("list sockets: %w", err)
	}
	for _, d := range drains {
		n := 0
		for _, s := range v.s.table.List(d.ID) {
			switch {
			case s.Local.Addr().IsLoopback():
			case s.State == socktab.Accepted:
				n++
			case s.State == socktab.Listening:
				n += int(waiting[s.Cookie])
			}
		}
		out.Apps = append(out.Apps, &nodeagentv1.Drain{AppId: string(d.ID), AppName: d.Name, Connections: uint32(n), Own: d.Own})
	}
	return out, nil
}
