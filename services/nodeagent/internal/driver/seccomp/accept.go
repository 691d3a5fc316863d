package seccomp

import (
	"net/netip"
	"syscall"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/crashpoint"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"appswitch.io/services/nodeagent/internal/vault"
	"golang.org/x/sys/unix"
)

const (
	// admissionTimeout bounds the wait for the identity of an accepted connection; then it is closed.
	admissionTimeout = time.Second
	// admissionSpin is for how long the thread asks again before it lets the accept wait: a connect on this node is
	// over in microseconds, and its server is woken in the middle of it.
	admissionSpin = 30 * time.Microsecond
)

// acceptQueue is what one listening socket has to hand out, and who waits for it. Connections are taken from the kernel
// one at a time, and only for a caller: what the kernel still has keeps the socket readable for whoever polls it.
type acceptQueue struct {
	t       *task
	cookie  uint64
	domain  int
	host    netip.AddrPort // real address of the listening socket
	server  netip.AddrPort // and its own virtual one
	fd      int            // duplicate of the listening socket, while somebody waits for connections; else -1
	waiting []*acceptCall  // in order
	pending *accepted      // whose connect is under way: not yet known who it is
	unknown []accepted     // left by the last agent, behind pending
	ready   []accepted     // admitted, but the caller was gone: the next accept gets them
}

// accepted is a connection taken from the kernel's queue.
type accepted struct {
	vault.Conn
	peer     socktab.Peer
	nonblock bool // as the descriptor is set
	asked    socktab.Ticket
	deadline time.Time
}

type acceptCall struct {
	*call
	flags    int
	nonblock bool
	parked   *parked
}

// accept hands out a connection: the address shown is the client's virtual one, and a connection that no agent
// announced is closed and never shown.
func (t *task) accept(c *call, flags int) {
	fd, s, kind, errno := t.lookup(c)
	if flags&^allowedFlags != 0 && errno != syscall.EBADF {
		if fd >= 0 {
			sys.Close(fd)
		}
		errno = syscall.EINVAL
	}
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	if kind == unrelated || s.Foreign {
		if fd >= 0 {
			sys.Close(fd)
		}
		t.pass(c) // a listener that was made outside: its clients are whoever can reach it
		return
	}
	if s.State != socktab.Listening {
		sys.Close(fd)
		errno := syscall.EINVAL
		if s.Proto == ax.UDP {
			errno = syscall.EOPNOTSUPP
		}
		t.fail(c, errno)
		return
	}
	q := t.queue(s)
	a := &acceptCall{call: c, flags: flags, nonblock: sys.Flags(fd)&unix.O_NONBLOCK != 0}
	if len(q.waiting) == 0 && q.serve(fd, a) {
		sys.Close(fd)
		q.tidy()
		return
	}
	if a.nonblock && (q.pending == nil || len(q.waiting) > 0) {
		sys.Close(fd)
		t.fail(c, syscall.EAGAIN)
		q.tidy()
		return
	}
	q.wait(fd, a)
}

func (t *task) queue(s socktab.Socket) *acceptQueue {
	q := t.accepts[s.Cookie]
	if q == nil {
		q = &acceptQueue{t: t, cookie: s.Cookie, domain: s.Domain, host: s.Host, fd: -1}
		q.server = netip.AddrPortFrom(t.ownAddr(s.Domain == unix.AF_INET), s.Local.Port())
		t.accepts[s.Cookie] = q
	}
	return q
}

// serve answers a if it can be done now. It takes connections from the kernel until one is admitted or none is left.
func (q *acceptQueue) serve(fd int, a *acceptCall) (done bool) {
	t := q.t
	if !t.waits(a.call) {
		return true
	}
	if len(q.ready) > 0 {
		conn := q.ready[0]
		q.ready = q.ready[1:]
		return q.deliver(conn, a)
	}
	for q.pending == nil {
		nonblock := a.flags&unix.SOCK_NONBLOCK != 0
		taken, errno := t.vault.Accept(vault.Listener{FD: fd, Nonblock: a.nonblock}, nonblock)
		switch errno {
		case 0:
		case syscall.EAGAIN:
			return false
		case syscall.ECONNABORTED:
			continue
		case syscall.EMFILE, syscall.ENFILE:
			t.d.deps.Log.Warn("accept: the agent is out of descriptors", "app", t.app.ID, "error", errno)
			t.fail(a.call, syscall.ENFILE)
			return true
		default: // EINVAL: shut down meanwhile
			t.fail(a.call, errno)
			return true
		}
		crashpoint.Here(crashpoint.AcceptTaken)
		conn := accepted{Conn: taken, nonblock: nonblock}
		if q.admit(&conn) {
			return q.deliver(conn, a)
		}
	}
	return false
}

// admit finds out who connected. A connection that is not admitted is closed, or kept while its connect is under way.
func (q *acceptQueue) admit(conn *accepted) bool {
	t := q.t
	table := t.d.deps.Table
	peer, admission, asked := table.Admit(conn.Peer, q.host, conn.asked, now(), nil)
	if admission == socktab.Pending && conn.asked == 0 {
		for end := now().Add(admissionSpin); admission == socktab.Pending && now().Before(end); {
			sys.Yield()
			peer, admission, asked = table.Admit(conn.Peer, q.host, asked, now(), nil)
		}
	}
	if admission == socktab.Pending {
		peer, admission, asked = table.Admit(conn.Peer, q.host, asked, now(), func() { t.post(q.retry) })
	}
	switch {
	case admission == socktab.Known:
		conn.peer = fit(peer, q.domain, conn.Peer, q.server)
		return true
	case admission == socktab.Pending && conn.asked == 0:
		conn.asked, conn.deadline = asked, now().Add(admissionTimeout)
		if grace := table.Grace(); grace.After(conn.deadline) {
			conn.deadline = grace
		}
		q.pending = conn
	case admission == socktab.Pending && now().Before(conn.deadline):
		q.pending = conn
	default:
		q.reject(*conn)
	}
	return false
}

func (q *acceptQueue) reject(conn accepted) {
	q.t.d.deps.Metrics.Rejected.Inc()
	if at := now(); at.Sub(q.t.rejected) >= time.Second { // whoever scans ports must not fill the log
		q.t.rejected = at
		q.t.d.deps.Log.Info("connection from outside AppSwitch is closed", "app", q.t.app.ID, "client", conn.Peer, "server", q.host)
	}
	q.t.drop(conn)
}

// drop closes a connection that reaches nobody.
func (t *task) drop(conn accepted) {
	t.vault.Settle(conn.Conn)
	sys.Close(conn.FD)
}

// deliver installs a connection into the caller. If the caller is gone, the connection is kept for the next one.
func (q *acceptQueue) deliver(conn accepted, a *acceptCall) bool {
	t := q.t
	if want := a.flags&unix.SOCK_NONBLOCK != 0; want != conn.nonblock {
		_ = unix.SetNonblock(conn.FD, want) // kept from an earlier caller; nobody else has it yet
		conn.nonblock = want
	}
	if a.args[1] != 0 {
		if errno := a.task().WriteSockaddr(a.args[1], a.args[2], q.domain, conn.peer.Remote); errno != 0 {
			t.drop(conn) // as natively: the connection is lost
			t.fail(a.call, errno)
			return true
		}
	}
	cookie, _ := sys.Cookie(conn.FD)
	q.enter(cookie, conn)
	switch n, errno := t.install(a.call, conn.FD, cookie, a.flags&unix.SOCK_CLOEXEC != 0); errno {
	case 0:
		crashpoint.Here(crashpoint.AcceptInstalled)
		t.vault.Settle(conn.Conn) // before the answer: from then on the application may close it
		crashpoint.Here(crashpoint.AcceptSettled)
		sys.Close(conn.FD)
		t.succeed(a.call, n, cookie)
	case syscall.ENOENT:
		q.ready = append(q.ready, conn)
		t.inflight.release(a.slot)
	default: // EMFILE: the caller's limit; natively the connection stays in the queue
		q.ready = append(q.ready, conn)
		t.fail(a.call, errno)
	}
	return true
}

// enter records an accepted socket.
func (q *acceptQueue) enter(cookie uint64, conn accepted) {
	q.t.d.deps.Table.Add(socktab.Socket{
		Cookie: cookie, App: q.t.app.ID, Domain: q.domain, Proto: ax.TCP, State: socktab.Accepted,
		Local: conn.peer.Local, Peer: conn.peer.Remote, SendTimeo: socktab.NoTimeo,
	})
}

// wait parks a call until a connection comes. The queue owns fd from here on.
func (q *acceptQueue) wait(fd int, a *acceptCall) {
	t := q.t
	if q.fd >= 0 {
		sys.Close(fd)
	} else {
		q.fd = fd
		if err := t.watch(fd, unix.EPOLLIN, func(uint32) { q.retry() }); err != nil {
			t.d.deps.Log.Error("watch listening socket", "app", t.app.ID, "error", err)
			q.fd = -1
			sys.Close(fd)
			t.fail(a.call, syscall.ENOMEM)
			return
		}
	}
	var deadline time.Time
	timed := false
	if a.nonblock { // only for a connection whose identity is on its way
		deadline = now().Add(admissionTimeout)
	} else if tv, errno := sys.ReceiveTimeout(q.fd); errno == 0 && (tv.Sec != 0 || tv.Usec != 0) {
		deadline, timed = now().Add(time.Duration(tv.Nano())), true
	}
	a.parked = t.park(a.call, deadline, func() {
		t.unpark(a.parked)
		t.fail(a.call, syscall.EAGAIN)
	}, func() { q.leave(a) })
	a.parked.timed = timed
	q.waiting = append(q.waiting, a)
}

func (q *acceptQueue) leave(a *acceptCall) {
	for i, w := range q.waiting {
		if w == a {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			break
		}
	}
	q.tidy()
}

// retry runs when a connection came in or an identity became known.
func (q *acceptQueue) retry() {
	if conn := q.pending; conn != nil {
		q.pending = nil
		if q.admit(conn) {
			q.ready = append(q.ready, *conn)
		}
	}
	for q.pending == nil && len(q.unknown) > 0 {
		conn := q.unknown[0]
		q.unknown = q.unknown[1:]
		if q.admit(&conn) {
			q.ready = append(q.ready, conn)
		}
	}
	for len(q.waiting) > 0 && q.fd >= 0 {
		a := q.waiting[0]
		if q.serve(q.fd, a) {
			q.t.unpark(a.parked)
		} else if a.nonblock && q.pending == nil {
			q.t.unpark(a.parked) // the connection it waited for was not admitted
			q.t.fail(a.call, syscall.EAGAIN)
		} else {
			break
		}
	}
	q.tidy()
}

// sweep drops what nobody can ask for any more.
func (q *acceptQueue) sweep() {
	if _, open := q.t.d.deps.Table.Get(q.cookie); !open {
		q.each(q.t.drop)
		q.tidy()
	} else if q.pending != nil {
		q.retry()
	}
}

// tidy lets the listening socket go when nobody waits for it: the agent's duplicate would keep its port.
func (q *acceptQueue) tidy() {
	if len(q.waiting) > 0 {
		return
	}
	if q.fd >= 0 {
		q.t.unwatch(q.fd)
		sys.Close(q.fd)
		q.fd = -1
	}
	if len(q.ready) == 0 && len(q.unknown) == 0 && q.pending == nil {
		delete(q.t.accepts, q.cookie)
	}
}

// close lets go of everything; what is not settled stays with the holder, for the next agent.
func (q *acceptQueue) close() {
	q.each(func(conn accepted) { sys.Close(conn.FD) })
	if q.fd >= 0 {
		sys.Close(q.fd)
		q.fd = -1
	}
}

// each takes all connections out of the queue.
func (q *acceptQueue) each(f func(accepted)) {
	for _, conn := range append(q.ready, q.unknown...) {
		f(conn)
	}
	if q.pending != nil {
		f(*q.pending)
	}
	q.ready, q.unknown, q.pending = nil, nil, nil
}
