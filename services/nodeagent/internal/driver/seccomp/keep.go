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
	"golang.org/x/sys/unix"
)

// kept are the descriptors of one application that survive the agent, because the application's holder has copies:
//
//   - transit, a pair of UNIX sockets through which an accepted connection passes on its way to the application. If the
//     agent is killed in between, the connection is still in there, and the next agent delivers it.
//   - dns, the socket to which the application's name lookups go. While there is no agent they queue in it, where a
//     closed port would refuse them, and lookups fail at once.
type kept struct {
	transitIn, transitOut int
	dns                   int
	dnsAddr               netip.AddrPort
}

const keptFDs = 3

// openKept takes up what an earlier agent has left, or makes it anew if that is nothing, or is not what it should be:
// it comes from a process of the application's user. It owns fds.
func openKept(fds []int) (kept, error) {
	if len(fds) == keptFDs {
		k := kept{transitIn: fds[0], transitOut: fds[1], dns: fds[2]}
		if k.check() == nil {
			return k, nil
		}
	}
	for _, fd := range fds {
		sys.Close(fd)
	}
	k := kept{transitIn: -1, transitOut: -1, dns: -1}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return k, fmt.Errorf("make transit: %w", err)
	}
	k.transitIn, k.transitOut = pair[0], pair[1]
	if k.dns, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
		err = unix.Bind(k.dns, &unix.SockaddrInet4{Addr: loopback4.As4()})
	}
	if err == nil {
		err = k.check()
	}
	if err != nil {
		k.close()
		return k, fmt.Errorf("make socket for name lookups: %w", err)
	}
	return k, nil
}

func (k *kept) check() error {
	for _, want := range []struct{ fd, domain, typ int }{
		{k.transitIn, unix.AF_UNIX, unix.SOCK_SEQPACKET}, {k.transitOut, unix.AF_UNIX, unix.SOCK_SEQPACKET}, {k.dns, unix.AF_INET, unix.SOCK_DGRAM},
	} {
		domain, e1 := sys.GetsockoptInt(want.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		typ, e2 := sys.GetsockoptInt(want.fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if e1 != 0 || e2 != 0 || domain != want.domain || typ != want.typ {
			return errors.New("not a socket of the right kind")
		}
	}
	if k.dnsAddr = realName(k.dns, sys.Getsockname); k.dnsAddr.Addr() != loopback4 || k.dnsAddr.Port() == 0 {
		return errors.New("not bound to loopback")
	}
	return nil
}

func (k *kept) close() {
	for _, fd := range []int{k.transitIn, k.transitOut, k.dns} {
		if fd >= 0 {
			sys.Close(fd)
		}
	}
}

// copies duplicates the descriptors; none if that fails.
func (k *kept) copies() []int {
	var out []int
	for _, fd := range []int{k.transitIn, k.transitOut, k.dns} {
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

// arrived takes a connection out of transit that has reached the application, or that nobody will get. With several
// in transit it may be another one than is meant: that one is then merely no longer protected.
func (k *kept) arrived() {
	var note sys.Note
	if fd, errno := sys.TakeTransit(k.transitOut, &note); errno == 0 && fd >= 0 {
		sys.Close(fd)
	}
}

// recoverTransit takes up the connections that were on their way when the agent died. They go back into transit until
// they are delivered: this agent may die as well.
func (t *task) recoverTransit() {
	type found struct {
		fd   int
		note sys.Note
	}
	var all []found
	for {
		var f found
		var errno syscall.Errno
		if f.fd, errno = sys.TakeTransit(t.kept.transitOut, &f.note); errno != 0 {
			break
		}
		if f.fd >= 0 {
			all = append(all, f)
		}
	}
	for _, f := range all {
		if !t.recover(f.fd, f.note) {
			sys.Close(f.fd)
		}
	}
}

// recover queues a connection that was in transit. The note says for which call: if that still waits, and its caller
// doesn't have the connection, it was not delivered.
func (t *task) recover(fd int, note sys.Note) bool {
	listener, ok := t.d.deps.Table.Get(note[1])
	cookie, _ := sys.Cookie(fd)
	if !ok || listener.App != t.app.ID || realName(fd, sys.Getsockname) != listener.Host ||
		!sys.Valid(t.listener, note[0]) || t.tookOver(note[0], cookie) {
		return false
	}
	q := t.queue(listener)
	if q.pending != nil {
		return false // there was one at a time
	}
	sys.PutTransit(t.kept.transitIn, fd, &note)
	conn := accepted{fd: fd, client: realName(fd, sys.Getpeername), nonblock: sys.Flags(fd)&unix.O_NONBLOCK != 0}
	if q.admit(&conn) {
		q.ready = append(q.ready, conn)
	}
	return true
}

// tookOver reports whether the caller of a call in flight has a socket already (install.go).
func (t *task) tookOver(id, cookie uint64) bool {
	for _, slot := range t.inflight.orphans() {
		if n := t.inflight.notify(slot); n.ID == id && *t.inflight.cookie(slot) == cookie {
			_, found := t.find(n.TID, cookie)
			return found
		}
	}
	return false
}

// startRelay answers name lookups until the returned function is called.
func (t *task) startRelay() (stop func()) {
	dup, err := unix.FcntlInt(uintptr(t.kept.dns), unix.F_DUPFD_CLOEXEC, 0)
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
