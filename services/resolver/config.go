package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"appswitch.io/services/resolver/internal/dnssrv"
	"appswitch.io/services/resolver/internal/zone"
	"github.com/spf13/pflag"
)

// Limits of the configuration.
const (
	maxListen       = 16
	maxAllowForward = 256
	maxCacheSize    = 1 << 20
)

// Config is what a resolver can be told.
type Config struct {
	DNS          bool       // serve DNS; names are served over gRPC in any case
	Port         uint16     // where DNS is served; 0 for any free one
	Domain       string     // suffix of names
	Servers      []string   // IP[:port] of the servers to forward to; none: those of ResolvConf
	Listen       []string   // addresses to serve at; none: NodeAddr and 127.0.0.1
	AllowForward []string   // prefixes whose queries are forwarded as well as the node's own
	CacheSize    int        // replies of other servers kept
	NodeAddr     netip.Addr // the node's address towards its peers, if known
	ResolvConf   string     // path of the host's resolv.conf
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{DNS: true, Port: 53, Domain: "appswitch.local", CacheSize: 10_000, ResolvConf: "/etc/resolv.conf"}
}

// Flags declares the options of the resolver.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&c.DNS, "dns", c.DNS, "serve DNS")
	fs.Uint16Var(&c.Port, "dns-port", c.Port, "port of DNS; where it is taken, another one serves managed applications")
	fs.StringVar(&c.Domain, "dns-domain", c.Domain, "suffix of names: web is also web.SUFFIX")
	fs.StringSliceVar(&c.Servers, "dns-servers", c.Servers, "IP[:port] of the servers to which other names are forwarded (default those of the host's resolv.conf)")
	fs.StringSliceVar(&c.Listen, "dns-listen", c.Listen, "addresses at which DNS is served (default the node's address and 127.0.0.1)")
	fs.StringSliceVar(&c.AllowForward, "dns-allow-forward", c.AllowForward, "prefixes such as 10.0.0.0/8 whose queries are forwarded too; by default only those of this node are")
	fs.IntVar(&c.CacheSize, "dns-cache-size", c.CacheSize, "replies of other servers kept; 0 keeps none")
}

// Validate reports what is wrong with the configuration.
func (c *Config) Validate() error {
	_, err := c.parse()
	return err
}

// parsed is a valid configuration in the types of those who use it.
type parsed struct {
	origin  string
	servers []netip.AddrPort
	listen  []netip.Addr
	allow   []netip.Prefix
}

func (c *Config) parse() (parsed, error) {
	var p parsed
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var err error
	if p.origin, err = zone.ParseDomain(c.Domain); err != nil {
		fail("--dns-domain: %w", err)
	}
	if c.CacheSize < 0 || c.CacheSize > maxCacheSize {
		fail("--dns-cache-size %d: want 0 to %d", c.CacheSize, maxCacheSize)
	}
	if len(c.Servers) > dnssrv.MaxUpstreams {
		fail("--dns-servers: %d servers, at most %d", len(c.Servers), dnssrv.MaxUpstreams)
	}
	for _, s := range c.Servers {
		server, err := dnssrv.ParseServer(strings.TrimSpace(s))
		if err != nil {
			fail("--dns-servers: %w", err)
		}
		p.servers = append(p.servers, server)
	}
	if len(c.Listen) > maxListen {
		fail("--dns-listen: %d addresses, at most %d", len(c.Listen), maxListen)
	}
	for _, s := range c.Listen {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			fail("--dns-listen %q: want an IP address", s)
		}
		p.listen = append(p.listen, a.Unmap())
	}
	if len(c.AllowForward) > maxAllowForward {
		fail("--dns-allow-forward: %d prefixes, at most %d", len(c.AllowForward), maxAllowForward)
	}
	for _, s := range c.AllowForward {
		prefix, err := parsePrefix(strings.TrimSpace(s))
		if err != nil {
			fail("--dns-allow-forward %q: want a prefix such as 10.0.0.0/8", s)
		}
		p.allow = append(p.allow, prefix)
	}
	return p, errors.Join(errs...)
}

// parsePrefix reads a prefix; an address alone is one of itself.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return own(a), nil
	}
	return netip.ParsePrefix(s)
}

func own(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}
