package attach

import (
	"fmt"
	"net/netip"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// virtualAddr reads the value of --ip. IPv6 needs a kernel that has it, because the program's sockets are real ones; hosts and
// networks need not.
func virtualAddr(text string, hasIPv6 func() bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("--ip %q: want an IPv4 or IPv6 address, such as 1.1.1.1 or 2001:db8::1", text)
	}
	if err := ax.CheckVirtual(a); err != nil {
		return netip.Addr{}, fmt.Errorf("--ip %q: %w", text, err)
	}
	if a.Is6() && !hasIPv6() {
		return netip.Addr{}, fmt.Errorf("--ip %q: this machine's kernel has IPv6 switched off: start it without ipv6.disable=1, or use an IPv4 address", text)
	}
	return a, nil
}

// hasIPv6 reports whether this kernel makes IPv6 sockets.
func hasIPv6() bool {
	fd, errno := sys.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errno == 0 {
		sys.Close(fd)
	}
	return errno != syscall.EAFNOSUPPORT
}

// second returns the other address of an application's own: the node's, if that is IPv4 and the first one is not.
func (m *Manager) second(first netip.Addr) string {
	if node := m.cfg.Node.Addr; first.Is6() && node.Is4() {
		return node.String()
	}
	return ""
}
