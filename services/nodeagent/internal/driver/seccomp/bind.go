package seccomp

import (
	"net/netip"
	"syscall"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/crashpoint"
	"appswitch.io/services/nodeagent/internal/procmem"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	now       = time.Now
)

// bind gives a socket a virtual local address, and a real one from the port pool behind it.
func (t *task) bind(c *call) {
	var buf [procmem.MaxSockaddr]byte
	fd, s, kind, errno := t.lookup(c)
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	if kind == unrelated {
		t.pass(c) // AF_UNIX and AF_NETLINK: names that we don't decide about
		return
	}
	defer sys.Close(fd)
	raw, errno := c.task().ReadSockaddr(c.args[1], int32(c.args[2]), &buf)
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	if !t.waits(c) {
		return
	}
	local, errno := t.bindAddress(&s, fd, raw)
	if errno == 0 {
		errno = t.bindTo(fd, s, local, c.replay)
	}
	t.fail(c, errno)
}

// bindAddress reads the address that the application wants, and refuses one that is not its own (EADDRNOTAVAIL).
func (t *task) bindAddress(s *socktab.Socket, fd int, raw []byte) (netip.AddrPort, syscall.Errno) {
	domain := s.Domain
	if errno := checkLength(domain, raw); errno != 0 {
		return netip.AddrPort{}, errno
	}
	sa, errno := procmem.ParseSockaddr(raw)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	if domain == unix.AF_INET && sa.Family == unix.AF_UNSPEC && len(raw) >= procmem.SizeInet4 {
		raw[0] = unix.AF_INET // __inet_bind: AF_UNSPEC with INADDR_ANY is taken for AF_INET
		if sa, _ = procmem.ParseSockaddr(raw); !sa.Addr.Addr().IsUnspecified() {
			return netip.AddrPort{}, syscall.EAFNOSUPPORT
		}
	}
	if int(sa.Family) != domain {
		return netip.AddrPort{}, syscall.EAFNOSUPPORT
	}
	if sa.Addr.Addr().Is4In6() && only6(fd, s) {
		return netip.AddrPort{}, syscall.EINVAL
	}
	local := unmap(sa.Addr)
	ip := local.Addr()
	if ip.Is6() && (ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast()) {
		return netip.AddrPort{}, syscall.EINVAL // of which interface?
	}
	if !ip.IsUnspecified() && !ip.IsLoopback() && ip != t.ownAddr(ip.Is4()) {
		return netip.AddrPort{}, syscall.EADDRNOTAVAIL
	}
	return local, 0
}

// bindTo binds a socket that has no address yet. It is also how listen() without bind() finds one.
func (t *task) bindTo(fd int, s socktab.Socket, local netip.AddrPort, replay bool) syscall.Errno {
	again := replay && s.State == socktab.Bound && (s.Local == local || local.Port() == 0)
	switch {
	case again && s.Host.IsValid():
		if s.Proto == ax.UDP {
			t.publishDatagram(s.Cookie)
		}
		return 0 // carried out before the earlier agent died
	case again: // in part
	case s.State != socktab.Fresh || s.Foreign:
		return syscall.EINVAL
	}
	reuse := reuseOptions(fd)
	only6 := only6(fd, &s)
	if local.Port() == 0 {
		return t.bindAny(fd, s, local, reuse, only6, replay)
	}
	table := t.d.deps.Table
	for {
		other, ok := table.Bind(t.app.Scope, s.Cookie, local, reuse, only6)
		if ok {
			break
		}
		if !closed(other, reuse) {
			return syscall.EADDRINUSE
		}
		t.d.SocketClosed(other.Cookie)
	}
	crashpoint.Here(crashpoint.BindEntered)
	host, pooled, errno := t.bindReal(fd, s, local, replay)
	crashpoint.Here(crashpoint.BindBound)
	if errno != 0 {
		table.Unbind(s.Cookie)
		t.closeTo4(fd, s.Cookie)
		return errno
	}
	table.Update(s.Cookie, func(s *socktab.Socket) { s.Host, s.Pooled = host, pooled })
	if s.Proto == ax.UDP {
		t.publishDatagram(s.Cookie)
	}
	return 0
}

// closed reports whether a socket that is in the way of another one has been closed. A program may close a socket and bind
// the next one before the kernel tells us of the former (sockdiag). The port behind it says how it is: the socket that asks
// may have that one, too, unless the other is still there.
func closed(other socktab.Socket, asks socktab.Reuse) bool {
	if !other.Host.IsValid() {
		return false
	}
	typ := unix.SOCK_STREAM
	if other.Proto == ax.UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, errno := sys.Socket(other.Domain, typ|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return false
	}
	defer sys.Close(fd)
	if asks.Addr {
		_ = sys.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if other.Domain == unix.AF_INET6 {
		only := 0
		if other.V6Only && !other.Host.Addr().Is4() {
			only = 1
		}
		_ = sys.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	return bindSocket(fd, other.Domain, other.Host) == 0
}

// bindAny binds to port 0: the virtual port is the real one, which nobody else can have.
func (t *task) bindAny(fd int, s socktab.Socket, local netip.AddrPort, reuse socktab.Reuse, only6, replay bool) syscall.Errno {
	host, pooled, errno := t.bindReal(fd, s, local, replay)
	crashpoint.Here(crashpoint.BindBound)
	if errno != 0 {
		t.closeTo4(fd, s.Cookie)
		return errno
	}
	local = netip.AddrPortFrom(local.Addr(), host.Port())
	t.d.deps.Table.Bind(t.app.Scope, s.Cookie, local, reuse, only6)
	t.d.deps.Table.Update(s.Cookie, func(s *socktab.Socket) {
		s.Local, s.State, s.Host, s.Pooled = local, socktab.Bound, host, pooled
	})
	if s.Proto == ax.UDP {
		t.publishDatagram(s.Cookie) // not pooled: only where others see it
	}
	return 0
}

// bindReal binds to the real address that stands for a virtual one. The host's own loopback is taken as it is;
// everything else gets a port of the pool. Of a bind that an agent had begun that died, what is done stays: the port is then
// nobody's in this agent's pool, which finds it busy.
func (t *task) bindReal(fd int, s socktab.Socket, local netip.AddrPort, replay bool) (host netip.AddrPort, pooled bool, errno syscall.Errno) {
	if replay {
		if host := realName(fd, sys.Getsockname); host.Port() != 0 {
			return host, false, 0
		}
	}
	if local.Addr().IsLoopback() && t.app.HostScope {
		errno = bindSocket(fd, s.Domain, local)
		return realName(fd, sys.Getsockname), false, errno
	}
	ip := t.realAddress(s.Proto, local.Addr())
	t.openTo4(fd, &s, ip)
	if shared, ok := t.d.deps.Table.ReusePortHost(s.Cookie); ok {
		if errno = bindSocket(fd, s.Domain, shared); errno == 0 && t.d.deps.Ports.Share(shared.Port()) {
			pooled = true
		}
		return shared, pooled, errno
	}
	if s.Proto == ax.UDP && local.Port() == 0 {
		errno = bindSocket(fd, s.Domain, netip.AddrPortFrom(ip, 0)) // a client: any port will do
		return realName(fd, sys.Getsockname), false, errno
	}
	return t.bindPooled(fd, s.Domain, ip)
}

// bindPooled takes ports from the pool until one is free on the host too: the pool overlaps the kernel's ephemeral
// range.
func (t *task) bindPooled(fd, domain int, ip netip.Addr) (netip.AddrPort, bool, syscall.Errno) {
	ports := t.d.deps.Ports
	var busy []uint16
	defer func() {
		for _, p := range busy {
			ports.Release(p)
		}
	}()
	for {
		port, ok := ports.Take()
		if !ok {
			t.d.deps.Metrics.PortsExhausted.Inc()
			return netip.AddrPort{}, false, syscall.EADDRINUSE
		}
		host := netip.AddrPortFrom(ip, port)
		switch errno := bindSocket(fd, domain, host); errno {
		case 0:
			return host, true, 0
		case syscall.EADDRINUSE, syscall.EACCES:
			busy = append(busy, port)
		default:
			ports.Release(port)
			return netip.AddrPort{}, false, errno
		}
	}
}

// realAddress is where a virtual address is bound on the host: loopback stays on loopback, the rest is on the node's
// address. IPv6 loopback is IPv4 loopback behind the scenes for TCP: a client that was bound to [::] first has the node's address,
// mostly an IPv4 one, and the kernel connects it to nothing else (EAFNOSUPPORT). Datagrams keep what is IPv6's: hop limits, traffic
// classes.
func (t *task) realAddress(proto ax.Protocol, ip netip.Addr) netip.Addr {
	switch {
	case ip.IsLoopback() && (ip.Is4() || proto == ax.TCP && t.d.cfg.NodeAddr.Is4()):
		return loopback4
	case ip.IsLoopback():
		return netip.IPv6Loopback()
	}
	return t.d.cfg.NodeAddr
}

func bindSocket(fd, domain int, a netip.AddrPort) syscall.Errno {
	var buf [procmem.SizeInet6]byte
	return sys.Bind(fd, procmem.AppendSockaddr(buf[:0], domain, a))
}

func reuseOptions(fd int) socktab.Reuse {
	addr, _ := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	port, _ := sys.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	return socktab.Reuse{Addr: addr != 0, Port: port != 0}
}

func v6only(fd int) bool {
	v, errno := sys.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return errno == 0 && v != 0
}

// listen makes a socket listen and its service known.
func (t *task) listen(c *call) {
	fd, s, kind, errno := t.lookup(c)
	if errno != 0 {
		t.fail(c, errno)
		return
	}
	if kind == unrelated {
		t.pass(c)
		return
	}
	defer sys.Close(fd)
	if !t.waits(c) {
		return
	}
	if errno := t.listenOn(fd, s, c); errno != 0 {
		t.fail(c, errno)
		return
	}
	t.listened(c, s.Cookie)
}

func (t *task) listenOn(fd int, s socktab.Socket, c *call) syscall.Errno {
	table := t.d.deps.Table
	if s.Proto == ax.UDP {
		return syscall.EOPNOTSUPP
	}
	if s.State == socktab.Fresh {
		if errno := t.bindTo(fd, s, wildcardOf(s.Domain, 0), c.replay); errno != 0 {
			return errno
		}
	}
	for s.State != socktab.Listening {
		other, ok := table.CanListen(s.Cookie)
		if ok {
			break
		}
		if !closed(other, reuseOptions(fd)) {
			return syscall.EADDRINUSE
		}
		t.d.SocketClosed(other.Cookie)
	}
	backlog := c.int(1)
	if errno := sys.Listen(fd, backlog); errno != 0 {
		return errno
	}
	crashpoint.Here(crashpoint.ListenListening)
	var endpoint ax.Endpoint
	table.Update(s.Cookie, func(s *socktab.Socket) {
		s.State, s.Backlog = socktab.Listening, backlog
		ip := serviceAddr(t.app.Addr, t.d.cfg.NodeAddr, s)
		if s.Foreign || s.Published || !ip.IsValid() {
			return // published already: listening again changes the backlog, whichever application does it
		}
		s.Published = true
		s.Service = netip.AddrPortFrom(ip, s.Local.Port())
		endpoint = Endpoint(t.app, *s)
	})
	if endpoint.ID != "" {
		t.d.deps.Publisher.PutEndpoint(endpoint)
	}
	return 0
}

// Endpoint is what stands for a published socket in the service table. The application's name leads to its own address
// alone.
func Endpoint(app App, s socktab.Socket) ax.Endpoint {
	name := app.DNSName()
	if s.Service.Addr() != app.Addr {
		name = ""
	}
	return ax.Endpoint{
		ID: ax.MakeEndpointID(s.App, s.Proto, s.Service, s.Host.Port()), App: s.App, Node: app.Node, Cluster: app.Cluster,
		Proto: s.Proto, Service: s.Service, Host: s.Host, Labels: app.Labels, Name: name,
	}
}
