package resolver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"appswitch.io/services/resolver/internal/dnssrv"
)

// bind opens the addresses to serve at. Where the port can't be had, another one is taken instead: managed
// applications are sent to wherever that is, and only they need it.
func bind(addrs []netip.Addr, port uint16, log *slog.Logger) ([]*dnssrv.Listener, error) {
	var out []*dnssrv.Listener
	for _, a := range addrs {
		l, err := dnssrv.Listen(netip.AddrPortFrom(a, port))
		if port != 0 && (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES)) {
			taken := err
			if l, err = dnssrv.Listen(netip.AddrPortFrom(a, 0)); err == nil {
				log.Warn("DNS port can't be bound: managed applications are served, other clients are not; free it or choose another --dns-port",
					"wanted", netip.AddrPortFrom(a, port).String(), "using", l.Addr().String(), "error", taken)
			}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serve DNS at %s: %w; choose addresses of this host with --dns-listen", a, err), unbind(out))
		}
		out = append(out, l)
	}
	return out, nil
}

func unbind(ls []*dnssrv.Listener) error {
	var errs []error
	for _, l := range ls {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// addresses returns where to listen, each once.
func addresses(p parsed, node netip.Addr) []netip.Addr {
	all := p.listen
	if len(all) == 0 {
		all = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		if node.IsValid() {
			all = append(all, node.Unmap())
		}
	}
	var out []netip.Addr
	for _, a := range all {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// preferred returns the address for managed applications: loopback if there is one, as their queries come from this host.
func preferred(ls []*dnssrv.Listener) netip.AddrPort {
	var best netip.AddrPort
	for _, l := range ls {
		a := l.Addr()
		if a.Addr().IsUnspecified() {
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if a.Addr().Is6() {
				loopback = netip.IPv6Loopback()
			}
			a = netip.AddrPortFrom(loopback, a.Port())
		}
		if a.Addr().IsLoopback() {
			return a
		}
		if !best.IsValid() {
			best = a
		}
	}
	return best
}

// host is what belongs to this host, as far as DNS is concerned.
type host struct {
	listeners []netip.AddrPort
	addrs     []netip.Addr // those of its interfaces, if a listener is at all of them
}

func newHost(ls []*dnssrv.Listener) (host, error) {
	var h host
	for _, l := range ls {
		h.listeners = append(h.listeners, l.Addr())
		if !l.Addr().Addr().IsUnspecified() || h.addrs != nil {
			continue
		}
		found, err := net.InterfaceAddrs()
		if err != nil {
			return host{}, fmt.Errorf("list the host's addresses: %w", err)
		}
		for _, f := range found {
			if p, err := netip.ParsePrefix(f.String()); err == nil {
				h.addrs = append(h.addrs, p.Addr().Unmap())
			}
		}
	}
	return h, nil
}

// resolver reports whether a server is this resolver.
func (h host) resolver(s netip.AddrPort) bool {
	for _, l := range h.listeners {
		if l == s {
			return true
		}
		mine := s.Addr().IsLoopback() || s.Addr().IsUnspecified() || slices.Contains(h.addrs, s.Addr())
		if l.Addr().IsUnspecified() && l.Port() == s.Port() && mine {
			return true
		}
	}
	return false
}

// clients returns the prefixes of this host's own addresses, from which the queries of managed applications come.
func (h host) clients(node netip.Addr) []netip.Prefix {
	out := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8), own(netip.IPv6Loopback())}
	all := slices.Clone(h.addrs)
	if node.IsValid() {
		all = append(all, node)
	}
	for _, l := range h.listeners {
		if !l.Addr().IsUnspecified() {
			all = append(all, l.Addr())
		}
	}
	for _, a := range all {
		out = append(out, own(a))
	}
	return out
}
