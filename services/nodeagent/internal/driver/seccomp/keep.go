package seccomp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/internal/vault"
	"golang.org/x/sys/unix"
)

// The application's holder has copies of these, so that they survive the agent: the vault's transit, and the socket for
// name lookups.
const keptFDs = vault.KeptFDs + 1

// nameSocket is where the application's name lookups go. While there is no agent they queue in it, where a closed port
// would refuse them, and lookups fail at once.
type nameSocket struct {
	fd   int
	addr netip.AddrPort
}

// openKept takes up what an earlier agent has left, or makes it anew if that is nothing, or is not what it should be:
// it comes from a process of the application's user. It owns what is handed of it, and on error it has let it go.
func (t *task) openKept(handed Handover) (err error) {
	t.names.fd = -1
	transit := handed.Kept
	if len(handed.Kept) == keptFDs {
		transit, t.names.fd = handed.Kept[:vault.KeptFDs], handed.Kept[vault.KeptFDs]
	}
	if t.vault, err = vault.New(transit); err == nil {
		err = t.names.open()
	}
	switch {
	case handed.Ring < 0:
	case err != nil:
		sys.Close(handed.Ring)
	default:
		t.vault.Entrust(handed.Ring)
	}
	return err
}

func (t *task) closeKept() {
	if t.vault != nil {
		t.vault.Close()
	}
	t.names.close()
}

// keepsakes duplicates the descriptors; none if that fails.
func (t *task) keepsakes() []int {
	var out []int
	for _, fd := range append(t.vault.Kept(), t.names.fd) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, fd := range out {
				sys.Close(fd)
			}
			return nil
		}
		out = append(out, dup)
	}
	return out
}

func (n *nameSocket) open() (err error) {
	if n.fd >= 0 && n.check() == nil {
		return nil
	}
	n.close()
	if n.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
		err = unix.Bind(n.fd, &unix.SockaddrInet4{Addr: loopback4.As4()})
	}
	if err == nil {
		err = n.check()
	}
	if err != nil {
		n.close()
		return fmt.Errorf("make socket for name lookups: %w", err)
	}
	return nil
}

func (n *nameSocket) check() error {
	domain, e1 := sys.GetsockoptInt(n.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	typ, e2 := sys.GetsockoptInt(n.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if e1 != 0 || e2 != 0 || domain != unix.AF_INET || typ != unix.SOCK_DGRAM {
		return errors.New("not a socket of the right kind")
	}
	if n.addr = realName(n.fd, sys.Getsockname); n.addr.Addr() != loopback4 || n.addr.Port() == 0 {
		return errors.New("not bound to loopback")
	}
	return nil
}

func (n *nameSocket) close() {
	if n.fd >= 0 {
		sys.Close(n.fd)
		n.fd = -1
	}
}

// recoverConnections takes up what was accepted and not delivered when the last agent ended.
func (t *task) recoverConnections() {
	for _, conn := range t.vault.Recover() {
		if !t.recoverConnection(conn) {
			t.vault.Settle(conn)
			sys.Close(conn.FD)
		}
	}
}

// recoverConnection queues a connection for the next accept, unless the caller of a call in flight has it already, to
// whom it is then announced (install.go).
func (t *task) recoverConnection(conn vault.Conn) bool {
	log := func(why string) bool {
		t.d.deps.Log.Info("connection left by the last agent is not delivered", "app", t.app.ID, "client", conn.Peer, "reason", why)
		return false
	}
	listener, ok := t.d.deps.Table.Listener(t.app.ID, realName(conn.FD, sys.Getsockname))
	if !ok {
		return log("nobody listens any more")
	}
	cookie, errno := sys.Cookie(conn.FD)
	if errno != 0 {
		return log("not a socket")
	}
	if t.tookOver(cookie) {
		return log("the application has it")
	}
	q := t.queue(listener)
	taken := accepted{Conn: conn, nonblock: sys.Flags(conn.FD)&unix.O_NONBLOCK != 0}
	if q.pending != nil { // there is one at a time: who it is will be asked when it is its turn
		q.unknown = append(q.unknown, taken)
		return true
	}
	if q.admit(&taken) {
		q.ready = append(q.ready, taken)
	}
	return true
}

// tookOver reports whether the caller of a call in flight has a socket already.
func (t *task) tookOver(cookie uint64) bool {
	for _, slot := range t.inflight.orphans() {
		if *t.inflight.cookie(slot) == cookie {
			_, found := t.find(t.inflight.notify(slot).TID, cookie)
			return found
		}
	}
	return false
}

// startRelay answers name lookups until the returned function is called.
func (t *task) startRelay() (stop func()) {
	dup, err := unix.FcntlInt(uintptr(t.names.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.d.deps.Log.Error("name lookups are not answered", "app", t.app.ID, "error", err)
		return func() {}
	}
	file := os.NewFile(uintptr(dup), "dns")
	conn, err := net.FilePacketConn(file)
	_ = file.Close()
	if err != nil {
		t.d.deps.Log.Error("name lookups are not answered", "app", t.app.ID, "error", err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := t.d.deps.Relay.Serve(ctx, conn.(*net.UDPConn)); err != nil && !errors.Is(err, syscall.EBADF) {
			t.d.deps.Log.Error("name lookups are not answered any more", "app", t.app.ID, "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
