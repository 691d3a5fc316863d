package manifest

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"go.yaml.in/yaml/v3"
)

// virtualService reads the fields of a virtual service. Balancers and spans of time may be written as REST shows them,
// so that what `ax get vservice -o yaml` lists can be applied.
func (d document) virtualService(fs fields) (v ax.VirtualService, err error) {
	if err := d.known(KindVirtualService, fs, "kind", "name", "ip", "balancer", "backends", "weights", "ports", "sessionAffinity", "sourceIp"); err != nil {
		return v, err
	}
	if v.Name, err = d.text(fs, "name"); err != nil {
		return v, err
	}
	if v.Addr, err = d.addr(fs, "ip"); err != nil {
		return v, err
	}
	if v.Source, err = d.addr(fs, "sourceIp"); err != nil {
		return v, err
	}
	if v.Balancer, err = d.balancer(fs); err != nil {
		return v, err
	}
	if v.Affinity, err = d.duration(fs, "sessionAffinity"); err != nil {
		return v, err
	}
	if v.Ports, err = d.portMappings(fs); err != nil {
		return v, err
	}
	if v.Backends, err = d.backends(fs); err != nil {
		return v, err
	}
	if err := v.Validate(); err != nil {
		name, what, _ := strings.Cut(err.Error(), ": ")
		name = strings.Replace(name, "session_affinity", "sessionAffinity", 1)
		return v, d.errorf(fs.node(name), name, "%s", what)
	}
	return v, nil
}

func (d document) addr(fs fields, name string) (netip.Addr, error) {
	text, err := d.text(fs, name)
	if err != nil || text == "" {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, d.errorf(fs.node(name), name, "%q is not an IP address", text)
	}
	return a.Unmap(), nil
}

func (d document) duration(fs fields, name string) (time.Duration, error) {
	text, err := d.text(fs, name)
	if err != nil || text == "" {
		return 0, err
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		return 0, d.errorf(fs.node(name), name, "%q is not a span of time: want a number with a unit, such as 10m or 90s", text)
	}
	return span, nil
}

// enum drops what REST writes around the name of a constant: BALANCER_TYPE_ROUND_ROBIN is RoundRobin.
func enum(prefix, text string) string {
	name, ok := strings.CutPrefix(text, prefix)
	switch {
	case !ok:
		return text
	case name == "UNSPECIFIED":
		return ""
	}
	return strings.ReplaceAll(name, "_", "")
}

func (d document) balancer(fs fields) (ax.BalancerType, error) {
	text, err := d.text(fs, "balancer")
	if err != nil {
		return 0, err
	}
	b, err := ax.ParseBalancer(enum("BALANCER_TYPE_", text))
	if err != nil {
		var names []string
		for _, b := range ax.Balancers() {
			names = append(names, b.String())
		}
		return 0, d.errorf(fs.node("balancer"), "balancer", "%v%s", err, d.nearest(text, names))
	}
	return b, nil
}

func (d document) portMappings(fs fields) (out []ax.PortMapping, err error) {
	err = d.list(fs, "ports", func(name string, n *yaml.Node) error {
		var text string
		if n.Kind == yaml.MappingNode {
			both, err := d.mapping(name, n)
			if err == nil {
				err = d.known("ports", both, "virtualPort", "backendPort")
			}
			if err != nil {
				return err
			}
			virtual, err1 := d.text(both, "virtualPort")
			backend, err2 := d.text(both, "backendPort")
			if err1 != nil || err2 != nil {
				return d.errorf(n, name, "want numbers for virtualPort and backendPort")
			}
			text = virtual + ":" + backend
		} else if text, err = d.scalar(name, n); err != nil {
			return err
		}
		m, err := ax.ParsePortMapping(text)
		if err != nil {
			return d.errorf(n, name, "%v", err)
		}
		out = append(out, m)
		return nil
	})
	return out, err
}

// backends reads the backends with their weights, which stand after a '=' or in a field of their own, as in REST.
func (d document) backends(fs fields) (out []ax.Backend, err error) {
	places := map[string]int{}
	err = d.list(fs, "backends", func(name string, n *yaml.Node) error {
		text, err := d.scalar(name, n)
		if err != nil {
			return err
		}
		b, err := ax.ParseWeightedBackend(text)
		if err != nil {
			return d.errorf(n, name, "%v", err)
		}
		places[text] = len(out)
		out = append(out, b)
		return nil
	})
	node := fs.node("weights")
	if err != nil || node == nil {
		return out, err
	}
	weights, err := d.mapping("weights", node)
	if err != nil {
		return nil, err
	}
	for _, f := range weights {
		place, ok := places[f.name]
		if !ok {
			return nil, d.errorf(f.key, "weights", "%q is not one of the backends as they are written", f.name)
		}
		n, err := strconv.ParseUint(f.value.Value, 10, 16)
		if err != nil || n < 1 || n > ax.MaxWeight {
			return nil, d.errorf(f.value, join("weights", f.name), "%s: want a number from 1 to %d", shape(f.value), ax.MaxWeight)
		}
		out[place].Weight = uint16(n)
	}
	return out, nil
}
