package resolver

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"appswitch.io/internal/config"
	"github.com/spf13/pflag"
)

// forwarders are the servers that are asked for names of others. They may change at any time.
type forwarders struct {
	self   func(netip.AddrPort) bool // whether a server is this one: asking it would go round in circles
	usual  func() []netip.AddrPort   // those of the host
	chosen atomic.Pointer[[]netip.AddrPort]
}

func newForwarders(self func(netip.AddrPort) bool, usual func() []netip.AddrPort) *forwarders {
	f := &forwarders{self: self, usual: usual}
	f.chosen.Store(&[]netip.AddrPort{})
	return f
}

// set chooses the servers; with none, those of the host are asked.
func (f *forwarders) set(servers []netip.AddrPort) error {
	for _, s := range servers {
		if f.self(s) {
			return fmt.Errorf("--dns-servers: %s is this resolver itself; name the servers behind it", s)
		}
	}
	f.chosen.Store(&servers)
	return nil
}

// servers returns the present ones.
func (f *forwarders) servers() []netip.AddrPort {
	if chosen := *f.chosen.Load(); len(chosen) > 0 {
		return chosen
	}
	return f.usual()
}

// Live returns the options that can change while the resolver runs. What other servers said before stays in the cache
// for as long as they allowed.
func (s *Service) Live() config.Live {
	if s.forwarders == nil {
		return nil
	}
	return config.Live{"dns-servers": func(fs *pflag.FlagSet) error {
		list, err := fs.GetStringSlice("dns-servers")
		if err != nil {
			return err
		}
		c := DefaultConfig()
		c.Servers = list
		p, err := c.parse()
		if err != nil {
			return err
		}
		return s.forwarders.set(p.servers)
	}}
}
