package dnssrv

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	dnsPort       = 53
	recheckAfter  = 5 * time.Second // resolv.conf is looked at again after so long
	maxResolvConf = 64 << 10        // bytes of a resolv.conf
)

// ParseServer reads a forwarding server, IP[:port].
func ParseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a.Unmap(), dnsPort), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("DNS server %q: want IP or IP:port, such as 8.8.8.8 or [2001:db8::1]:53", s)
	}
	return unmapped(a), nil
}

// ResolvConf follows the name servers of a resolv.conf, as a host's addresses change with its networks.
type ResolvConf struct {
	path string
	self func(netip.AddrPort) bool // whether a server is this one: asking it would go round in circles

	mu      sync.Mutex // guards what follows
	checked time.Time
	changed time.Time // the file's, when it was read
	size    int64
	servers []netip.AddrPort
}

// NewResolvConf follows a file; servers that self says to be this one are left out.
func NewResolvConf(path string, self func(netip.AddrPort) bool) *ResolvConf {
	return &ResolvConf{path: path, self: self}
}

// Servers returns the present servers. A file that can't be read leaves them as they were.
func (r *ResolvConf) Servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.checked.IsZero() && now.Sub(r.checked) < recheckAfter {
		return r.servers
	}
	r.checked = now
	info, err := os.Stat(r.path)
	if err != nil || info.Size() > maxResolvConf || info.ModTime().Equal(r.changed) && info.Size() == r.size {
		return r.servers
	}
	conf, err := dns.ClientConfigFromFile(r.path)
	if err != nil {
		return r.servers
	}
	r.changed, r.size = info.ModTime(), info.Size()
	var servers []netip.AddrPort
	for _, s := range conf.Servers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue // the host's own resolver ignores it as well
		}
		server := netip.AddrPortFrom(a.Unmap(), dnsPort)
		if !r.self(server) && !slices.Contains(servers, server) && len(servers) < MaxUpstreams {
			servers = append(servers, server)
		}
	}
	r.servers = servers
	return servers
}
