package ax

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a virtual service.
const (
	MaxBackends = 256            // backends of one virtual service
	MaxPorts    = 256            // port mappings of one virtual service
	MaxWeight   = 1000           // weight of a backend
	MinAffinity = time.Second    // a shorter affinity would end between two connects
	MaxAffinity = 24 * time.Hour // a longer one is Maglev's to give
)

// BalancerType names the way an endpoint is chosen among the healthy candidates. Each respects the weights of backends.
type BalancerType uint8

// The balancers.
const (
	Random     BalancerType = 1 // with a probability in proportion to weight
	RoundRobin BalancerType = 2 // in turn; each node keeps a turn of its own
	LeastConn  BalancerType = 3 // the fewest connections of this node for its weight
	Maglev     BalancerType = 4 // by the client: the same one as long as it is there
)

var balancerNames = map[BalancerType]string{Random: "Random", RoundRobin: "RoundRobin", LeastConn: "LeastConn", Maglev: "Maglev"}

// Balancers are all balancers, in the order in which people are told of them.
func Balancers() []BalancerType { return []BalancerType{Random, RoundRobin, LeastConn, Maglev} }

// String returns the name as the command line takes it.
func (b BalancerType) String() string {
	if name, ok := balancerNames[b]; ok {
		return name
	}
	return "balancer(" + strconv.Itoa(int(b)) + ")"
}

// ParseBalancer reads the name of a balancer, in any case; the empty string means Random.
func ParseBalancer(s string) (BalancerType, error) {
	if s == "" {
		return Random, nil
	}
	for _, b := range Balancers() {
		if strings.EqualFold(s, b.String()) {
			return b, nil
		}
	}
	return 0, fmt.Errorf("%q is not a balancer: want Random, RoundRobin, LeastConn or Maglev", s)
}

// PortMapping maps a virtual port to that of the backends.
type PortMapping struct{ Virtual, Backend uint16 }

// ParsePortMapping reads "vport:port", or one number for both.
func ParsePortMapping(s string) (PortMapping, error) {
	virtual, backend, two := strings.Cut(strings.TrimSpace(s), ":")
	if !two {
		backend = virtual
	}
	vp, err1 := parsePort(virtual)
	bp, err2 := parsePort(backend)
	if err1 != nil || err2 != nil {
		return PortMapping{}, fmt.Errorf("%q: want vport:port, such as 80:8000, of numbers from 1 to 65535", s)
	}
	return PortMapping{Virtual: vp, Backend: bp}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a port", s)
	}
	return uint16(n), nil
}

// Backend is where a virtual service sends connections.
//
// With neither Port nor External it stands for the services of the table at Addr, on the ports to which the virtual
// service maps its own. With a Port it stands for the service of the table at Addr:Port, or while there is none, for
// that address outside AppSwitch. External is an address outside AppSwitch on the mapped ports.
type Backend struct {
	Addr     netip.Addr
	Port     uint16 // 0: as mapped
	External bool   // without Port only
	Weight   uint16 // of each of its servers, 1 to MaxWeight
}

// anyPort is how a backend outside AppSwitch is written that is reached on the mapped ports.
const anyPort = "*"

// ParseBackend reads "IP", "IP:port" or "IP:*", an IPv6 address with a port in brackets. The weight is 1.
func ParseBackend(s string) (Backend, error) {
	b := Backend{Weight: 1}
	text := s
	if rest, ok := strings.CutSuffix(s, ":"+anyPort); ok {
		b.External = true
		text = strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]")
	}
	addr, err := netip.ParseAddr(text)
	if err != nil && !b.External {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(text)
		addr, b.Port = ap.Addr(), ap.Port()
		if err == nil && b.Port == 0 {
			err = errors.New("port 0")
		}
	}
	if err != nil || addr.Zone() != "" {
		return Backend{}, fmt.Errorf("%q: want the address of a service, or IP:port or IP:* of a server outside AppSwitch", s)
	}
	b.Addr = addr.Unmap()
	return b, nil
}

// ParseWeightedBackend reads what ParseBackend does, with "=weight" after it if it is not 1.
func ParseWeightedBackend(s string) (Backend, error) {
	text, weight, weighed := strings.Cut(s, "=")
	b, err := ParseBackend(text)
	if err != nil || !weighed {
		return b, err
	}
	n, err := strconv.ParseUint(weight, 10, 16)
	if err != nil || n < 1 || n > MaxWeight {
		return Backend{}, fmt.Errorf("%q: want a weight from 1 to %d after the '='", s, MaxWeight)
	}
	b.Weight = uint16(n)
	return b, nil
}

// String writes the backend as ParseBackend reads it, without its weight.
func (b Backend) String() string {
	switch {
	case b.External && b.Addr.Is4():
		return b.Addr.String() + ":" + anyPort
	case b.External:
		return "[" + b.Addr.String() + "]:" + anyPort
	case b.Port != 0:
		return netip.AddrPortFrom(b.Addr, b.Port).String()
	}
	return b.Addr.String()
}

// VirtualService is a named virtual address that balances connections over backends.
type VirtualService struct {
	Name     string
	Addr     netip.Addr // invalid until it is allocated
	Balancer BalancerType
	Ports    []PortMapping // none: all ports of the backends, under their own numbers
	Backends []Backend
	Affinity time.Duration // for how long after its last connect a client gets the same endpoint again; 0: not at all
	Source   netip.Addr    // host address from which backends are connected to; invalid: as the host's routes say
}

// Validate reports the first thing that makes a virtual service unusable, whatever the table holds. Its address may be
// missing.
func (v VirtualService) Validate() error {
	switch {
	case v.Name == "":
		return errors.New("name: missing")
	case v.Balancer < Random || v.Balancer > Maglev:
		return fmt.Errorf("balancer: %s is not one", v.Balancer)
	case len(v.Ports) > MaxPorts:
		return fmt.Errorf("ports: %d mappings, at most %d", len(v.Ports), MaxPorts)
	case len(v.Backends) > MaxBackends:
		return fmt.Errorf("backends: %d, at most %d", len(v.Backends), MaxBackends)
	case v.Affinity != 0 && (v.Affinity < MinAffinity || v.Affinity > MaxAffinity):
		return fmt.Errorf("session_affinity: %s: want %s to %s", v.Affinity, MinAffinity, MaxAffinity)
	}
	for i, m := range v.Ports {
		if m.Virtual == 0 || m.Backend == 0 {
			return fmt.Errorf("ports: port 0 in %d:%d", m.Virtual, m.Backend)
		}
		if slices.Contains(v.Ports[:i], m) {
			return fmt.Errorf("ports: %d:%d is given twice", m.Virtual, m.Backend)
		}
	}
	for i, b := range v.Backends {
		if err := v.checkBackend(b); err != nil {
			return err
		}
		if slices.ContainsFunc(v.Backends[:i], func(other Backend) bool { return other.String() == b.String() }) {
			return fmt.Errorf("backends: %s is given twice; give it a weight instead", b)
		}
	}
	return nil
}

func (v VirtualService) checkBackend(b Backend) error {
	switch {
	case !b.Addr.IsValid() || b.Addr.Is4In6() || b.Addr.Zone() != "":
		return fmt.Errorf("backends: %s is not an IP address", b.Addr)
	case b.Weight < 1 || b.Weight > MaxWeight:
		return fmt.Errorf("weights: %d for %s: want 1 to %d; to send nothing there, leave the backend out", b.Weight, b, MaxWeight)
	case b.External && b.Port != 0:
		return fmt.Errorf("backends: %s has a port and is for all ports", b)
	case b.External && len(v.Ports) == 0:
		return fmt.Errorf("backends: %s needs ports: of a server outside AppSwitch it is not known where it listens", b)
	}
	return nil
}

// BackendPorts returns the ports at which a backend is reached through a virtual port; none if the virtual service
// does not offer it there.
func (v VirtualService) BackendPorts(b Backend, virtual uint16) []uint16 {
	if len(v.Ports) == 0 {
		if b.External || b.Port != 0 && b.Port != virtual {
			return nil
		}
		return []uint16{virtual}
	}
	var out []uint16
	for _, m := range v.Ports {
		if m.Virtual != virtual {
			continue
		}
		if b.Port != 0 {
			return []uint16{b.Port}
		}
		out = append(out, m.Backend)
	}
	return out
}

// VirtualPorts returns the virtual ports that lead to a port of a backend.
func (v VirtualService) VirtualPorts(b Backend, port uint16) []uint16 {
	if b.Port != 0 && b.Port != port {
		return nil
	}
	if len(v.Ports) == 0 {
		return []uint16{port}
	}
	var out []uint16
	for _, m := range v.Ports {
		if (b.Port != 0 || m.Backend == port) && !slices.Contains(out, m.Virtual) {
			out = append(out, m.Virtual)
		}
	}
	return out
}

// Covers reports whether the virtual service speaks for one of its address's ports: whether others may not.
func (v VirtualService) Covers(port uint16) bool {
	if len(v.Ports) > 0 {
		return slices.ContainsFunc(v.Ports, func(m PortMapping) bool { return m.Virtual == port })
	}
	return true
}
