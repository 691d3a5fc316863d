package seccomp

import (
	"net/netip"
	"syscall"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/crashpoint"
	"appswitch.io/services/nodeagent/internal/flows"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

const (
	// refusalWindow is for how long a non-blocking connect is held back: a refusal that comes in time is retried on
	// the next endpoint before the application sees anything. After it the application gets EINPROGRESS, and whatever
	// becomes of that one connection.
	refusalWindow = 5 * time.Millisecond
	maxAttempts   = 16 // endpoints tried within one connect
	unusedPort    = 1  // no service uses it over UDP
)

// connect is a connect(2) under way.
type connect struct {
	*call
	t         *task
	fd        int // duplicate of the socket
	s         socktab.Socket
	dest      netip.AddrPort // as the application gave it, unmapped
	target    target
	resumed   bool // the socket was connecting already: target is not of this decision
	begun     bool // the socket is connecting to target
	tried     []ax.EndpointID
	blocking  bool
	sendTimeo unix.Timeval // the application's SO_SNDTIMEO
	deadline  time.Time    // the end of that, or of the refusal window
	parked    *parked
	watched   bool
}

// connect decides where a connect goes and carries it out.
func (t *task) connect(c *call) {
	var buf [procmem.MaxSockaddr]byte
	fd, s, kind, errno := t.lookup(c)
	if errno == syscall.ENOTSOCK { // connect(2) alone reads the address before it asks what the descriptor is
		if _, unreadable := c.task().ReadSockaddr(c.args[1], int32(c.args[2]), &buf); unreadable != 0 {
			errno = unreadable
		}
	}
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	if kind == unrelated {
		t.pass(c)
		return
	}
	raw, errno := c.task().ReadSockaddr(c.args[1], int32(c.args[2]), &buf)
	if errno == 0 && !t.waits(c) {
		sys.Close(fd)
		return
	}
	var sa procmem.Sockaddr
	if errno == 0 {
		sa, errno = procmem.ParseSockaddr(raw)
	}
	if errno == 0 && sa.Family == unix.AF_UNSPEC {
		t.disconnect(c, fd, s)
		return
	}
	if errno == 0 {
		errno = checkDestination(&s, fd, raw, sa)
	}
	if errno != 0 {
		sys.Close(fd)
		t.fail(c, errno)
		return
	}
	op := &connect{call: c, t: t, fd: fd, s: s, dest: localhost(unmap(sa.Addr))}
	op.start()
}

// disconnect dissolves an association: connect(2) with AF_UNSPEC.
func (t *task) disconnect(c *call, fd int, s socktab.Socket) {
	defer sys.Close(fd)
	errno := sys.Connect(fd, make([]byte, procmem.SizeInet4))
	if errno == 0 {
		t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) {
			port := s.Local.Port()
			s.Disconnect()
			if s.Proto == ax.TCP && !s.Bound.IsValid() && port != 0 {
				s.Local = wildcardOf(s.Domain, port) // tcp_disconnect resets the address alone
			}
		})
		t.closeTo4(fd, s.Cookie)
		t.disconnected(fd, s)
	}
	t.fail(c, errno)
}

// start decides on a new connect, and goes on with one that is under way already.
func (op *connect) start() {
	op.blocking = sys.Flags(op.fd)&unix.O_NONBLOCK == 0
	if op.blocking {
		op.sendTimeo, _ = sys.SendTimeout(op.fd)
		if op.sendTimeo.Sec != 0 || op.sendTimeo.Usec != 0 {
			op.deadline = now().Add(time.Duration(op.sendTimeo.Nano()))
		}
	} else {
		op.deadline = now().Add(refusalWindow)
	}
	switch op.s.State {
	case socktab.Listening, socktab.Accepted:
		op.finish(syscall.EISCONN)
		return
	case socktab.Connecting, socktab.Connected:
		if op.s.Proto == ax.TCP && op.resume() {
			return
		}
	}
	op.decide()
}

// resume goes on with a connect that was begun: the kernel knows what has become of it, and doesn't look at the address
// again. It reports false if it may not even have been begun, by an agent that died; a connect that leads out of
// AppSwitch is then simply decided again.
func (op *connect) resume() bool {
	switch {
	case op.s.HostPeer.IsValid():
		op.target = target{addr: op.s.HostPeer, managed: true, verdict: ax.Allow}
	case op.replay:
		return false
	default:
		op.target = target{addr: op.s.Peer, verdict: ax.Passthrough}
	}
	op.resumed = true
	op.attempt()
	return true
}

// decide picks a target and tries it.
func (op *connect) decide() {
	var ok bool
	if op.s.Proto == ax.UDP {
		op.target, ok = op.t.resolveDatagram(op.s, op.dest)
	} else {
		op.target, ok = op.t.resolve(op.s, op.dest, op.tried)
	}
	if !ok {
		op.waitForSnapshot()
		return
	}
	if op.s.Proto == ax.UDP {
		op.finish(op.associate())
		return
	}
	if op.target.errno != 0 {
		op.finish(op.target.errno)
		return
	}
	op.attempt()
}

// attempt starts a connect to the target without waiting, and finishes, parks or tries the next endpoint.
func (op *connect) attempt() {
	for range maxAttempts {
		errno := op.begin()
		if errno == syscall.EALREADY && !op.blocking && !op.replay && op.parked == nil {
			op.finish(errno) // the application asks again while its first connect is under way
			return
		}
		if errno == syscall.EINPROGRESS || errno == syscall.EALREADY {
			op.wait()
			return
		}
		if op.resumed && op.replay && isRefusal(errno) { // by whom the dead agent had chosen
			op.resumed = false
			op.decide()
			return
		}
		if !op.next(errno) {
			op.finish(errno)
			return
		}
		if op.target.errno != 0 {
			op.finish(op.target.errno)
			return
		}
	}
	op.finish(syscall.ECONNREFUSED)
}

// begin calls connect(2) so that it returns at once whatever the socket's flags are, and enters the addresses of the
// attempt. O_NONBLOCK belongs to the application and is shared with it; a send timeout of "never" has the same effect
// on connect alone, and the application's own is put back before anything can wait for it. The journal knows both what is
// borrowed and where the socket is about to connect, in case we die in between.
func (op *connect) begin() syscall.Errno {
	table := op.t.d.deps.Table
	op.t.openTo4(op.fd, &op.s, op.target.addr.Addr())
	if errno := op.bindSource(); errno != 0 {
		return errno
	}
	if op.target.managed {
		intent := table.Intend(op.target.addr)
		defer table.Settle(op.target.addr, intent)
	}
	table.Update(op.s.Cookie, op.intend)
	crashpoint.Here(crashpoint.ConnectIntended)
	if op.blocking {
		if errno := sys.SetSendTimeout(op.fd, unix.Timeval{Sec: -1}); errno != 0 {
			return errno // connecting would block the thread
		}
	}
	var buf [procmem.SizeInet6]byte
	sa := procmem.AppendSockaddr(buf[:0], op.s.Domain, op.target.addr)
	errno := sys.Connect(op.fd, sa)
	if errno == syscall.EISCONN && (op.replay || op.parked != nil) {
		errno = 0
	}
	started := errno == 0 || errno == syscall.EINPROGRESS
	if errno == syscall.EINPROGRESS {
		// Over loopback the handshake is over by now; the second call says so.
		if errno = sys.Connect(op.fd, sa); errno == syscall.EALREADY {
			errno = syscall.EINPROGRESS
		}
	}
	crashpoint.Here(crashpoint.ConnectBegun)
	if op.blocking {
		_ = sys.SetSendTimeout(op.fd, op.sendTimeo) // what could be set, can be set back
	}
	var host netip.AddrPort
	if started {
		host = realName(op.fd, sys.Getsockname)
	}
	table.Update(op.s.Cookie, func(s *socktab.Socket) { op.record(s, host, errno) })
	if started {
		op.begun = true
		op.count()
	}
	crashpoint.Here(crashpoint.ConnectRecorded)
	return errno
}

// bindSource binds a socket that has no real address yet to the one from which its virtual service wants to connect. The
// kernel takes the port at connect, where it may be any that is free towards that peer.
func (op *connect) bindSource() syscall.Errno {
	if !op.target.source.IsValid() || op.s.Host.IsValid() {
		return 0
	}
	_ = unix.SetsockoptInt(op.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	var buf [procmem.SizeInet6]byte
	return sys.Bind(op.fd, procmem.AppendSockaddr(buf[:0], op.s.Domain, netip.AddrPortFrom(op.target.source, 0)))
}

// intend enters what is about to be tried.
func (op *connect) intend(s *socktab.Socket) {
	if op.blocking {
		s.SendTimeo = time.Duration(op.sendTimeo.Nano())
	}
	if op.resumed || op.begun {
		return
	}
	s.Peer, s.State, s.HostPeer = op.dest, socktab.Connecting, netip.AddrPort{}
	if !s.Bound.IsValid() {
		s.Host = netip.AddrPort{} // of an attempt before this
	} else if s.Host.IsValid() {
		s.Local = op.t.clientAddress(s, s.Peer, s.Host) // the server may accept before record comes
	}
	if op.target.managed {
		s.HostPeer = op.target.addr
	}
}

// record enters what has become of it: host is the socket's real address, if the connect has started. The real addresses
// identify the client to the server's agent.
func (op *connect) record(s *socktab.Socket, host netip.AddrPort, errno syscall.Errno) {
	s.SendTimeo = socktab.NoTimeo
	if host.IsValid() {
		s.Host = host
		s.Local = op.t.clientAddress(s, s.Peer, host)
	}
	if errno == 0 {
		s.State = socktab.Connected
	}
	op.s = *s
}

// count lets the connection weigh on its endpoint, for the choice of the next ones.
func (op *connect) count() {
	if op.target.endpoint != nil {
		op.t.d.deps.Conns.Opened(op.s.Cookie, op.s.Proto, op.target.addr)
	}
}

// isRefusal reports whether an endpoint can't be reached, so that another one may be.
func isRefusal(errno syscall.Errno) bool {
	switch errno {
	case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT, syscall.EHOSTDOWN:
		return true
	}
	return false
}

// next reports whether errno is a refusal after which another endpoint is tried; it then sets the target.
func (op *connect) next(errno syscall.Errno) bool {
	if !isRefusal(errno) || op.target.endpoint == nil {
		return false
	}
	op.failed(errno)
	op.tried = append(op.tried, op.target.endpoint.ID)
	again, ok := op.t.resolve(op.s, op.dest, op.tried)
	if !ok || again.endpoint == nil {
		return false
	}
	op.target, op.begun = again, false
	return true
}

// finish answers the connect.
func (op *connect) finish(errno syscall.Errno) {
	t := op.t
	switch errno {
	case 0:
		if op.s.State != socktab.Connected {
			t.d.deps.Table.Update(op.s.Cookie, func(s *socktab.Socket) { s.State = socktab.Connected })
		}
		op.succeeded()
	case syscall.EINPROGRESS, syscall.EALREADY, syscall.EISCONN:
	default:
		t.d.deps.Conns.Closed(op.s.Cookie)
		t.d.deps.Table.Update(op.s.Cookie, (*socktab.Socket).Disconnect)
		t.closeTo4(op.fd, op.s.Cookie)
	}
	op.log(errno)
	if op.parked != nil {
		t.unpark(op.parked) // releases
	} else {
		op.release()
	}
	t.fail(op.call, errno)
}

func (op *connect) release() {
	if op.watched {
		op.t.unwatch(op.fd)
		op.watched = false
	}
	if op.fd >= 0 {
		sys.Close(op.fd)
		op.fd = -1
	}
}

// log tells of a connect. Lookups are left out, and so is what resolvers do to sort addresses (a UDP connect to each), but for
// what a policy has to say of it.
func (op *connect) log(errno syscall.Errno) {
	switch {
	case op.target.reason == ax.ReasonDNS:
		return
	case op.s.Proto == ax.UDP:
		op.t.logDatagram(op.dest, &op.target)
		return
	}
	op.t.logFlow(flows.Flow{
		Proto: op.s.Proto, Dest: op.dest, Verdict: op.target.verdict, Reason: op.target.reason, Policy: op.target.policy, Audit: op.target.audit,
		Host: op.target.addr, Errno: errno, Retries: len(op.tried),
	})
}
