// Package attach gives programs that are launched their identity, and takes over their system calls.
//
// It is the agent's side of package wire: `ax run` asks for an identity (Hello), then it and the holder hand over the
// seccomp listener (Attach), again after every restart of the agent. Invariant: an identity is granted only to who may
// have it (peer.go), and taken up again only with its token. Start reading at [Server.Run] and [Manager.Hello].
package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/host"
	"appswitch.io/services/nodeagent/internal/driver/seccomp"
	"appswitch.io/services/nodeagent/launch/wire"
)

const (
	maxConns     = 16384            // launchers and holders connected at once
	helloTimeout = 10 * time.Second // for the first message of a connection
	helloAfter   = 40 * time.Second // from the identity to the program's start: mounts may be slow
)

// Server listens on the agent's socket.
type Server struct {
	log     *slog.Logger
	manager *Manager
	runDir  string
}

// NewServer makes a server for the socket in runDir.
func NewServer(log *slog.Logger, manager *Manager, runDir string) *Server {
	return &Server{log: log, manager: manager, runDir: runDir}
}

// Listen opens the socket, replacing one that a dead agent left behind. It fails if another agent answers there.
func (s *Server) Listen() (*net.UnixListener, error) {
	if err := os.MkdirAll(s.runDir, 0o755); err != nil {
		return nil, host.DirError("--run-dir", err)
	}
	path := filepath.Join(s.runDir, wire.SocketName)
	if conn, err := net.DialTimeout("unixpacket", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another node agent is running: it answers at %s", path)
	}
	// The new socket takes the old one's place in one step, so that there is never none.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open agent socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: tmp, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("open agent socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o666), os.Rename(tmp, path)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("open agent socket: %w", err)
	}
	return l, nil
}

// Run serves until ctx is done, then closes every connection: launchers and holders come back to the next agent.
func (s *Server) Run(ctx context.Context, l *net.UnixListener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on agent socket: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.log.Warn("connection to the agent socket is refused: too many", "limit", maxConns)
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, conn)
		})
	}
}

// serve answers one launcher or holder.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	p, err := peerOf(conn)
	if err != nil {
		_ = send(conn, wire.Message{Error: &wire.Error{Code: wire.CodeInvalid, Message: err.Error()}}, nil)
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	for {
		m, fds, err := receive(conn)
		if err != nil {
			closeAll(fds)
			return // gone, or not one of ours
		}
		r := s.answer(ctx, p, m, fds)
		err = send(conn, r.Message, r.fds)
		closeAll(r.fds)
		if err != nil || r.Error != nil {
			return
		}
		if r.stay {
			_ = conn.SetReadDeadline(time.Time{})
		} else {
			_ = conn.SetReadDeadline(time.Now().Add(helloAfter))
		}
	}
}

type reply struct {
	wire.Message
	fds  []int // to send along, and to close then
	stay bool  // the peer keeps the connection for good
}

// answer carries out one request.
func (s *Server) answer(ctx context.Context, p peer, m wire.Message, fds []int) reply {
	switch {
	case m.Hello != nil:
		closeAll(fds)
		welcome, err := s.manager.Hello(ctx, p, *m.Hello)
		if err != nil {
			return reply{Message: refuse(err)}
		}
		return reply{Message: wire.Message{Welcome: welcome}}
	case m.Attach != nil:
		if len(fds) < wire.HandedFDs {
			closeAll(fds)
			return reply{Message: refuse(&wire.Error{Code: wire.CodeInvalid, Message: "attach without its descriptors"})}
		}
		handed := seccomp.Handover{Listener: fds[0], Journal: fds[1], Kept: fds[wire.HandedFDs:], Ring: -1}
		if m.Attach.Holder && m.Attach.Ring > 0 {
			var err error
			if handed.Ring, err = p.descriptor(m.Attach.Ring); err != nil {
				s.log.Debug("holder's ring is not taken: a kill of this agent may lose a connection", "app", m.Attach.AppID, "error", err)
			}
		}
		if err := s.manager.Attach(ctx, p, *m.Attach, handed); err != nil {
			return reply{Message: refuse(err)}
		}
		return reply{
			Message: wire.Message{Attached: &wire.Attached{Version: wire.Version}},
			fds:     s.manager.Keepsakes(ax.AppID(m.Attach.AppID)), stay: m.Attach.Holder,
		}
	}
	closeAll(fds)
	return reply{Message: refuse(&wire.Error{Code: wire.CodeInvalid, Message: "unexpected message"})}
}

func refuse(err error) wire.Message {
	var e *wire.Error
	if !errors.As(err, &e) {
		e = &wire.Error{Code: wire.CodeUnavailable, Message: err.Error()}
	}
	return wire.Message{Error: e}
}
