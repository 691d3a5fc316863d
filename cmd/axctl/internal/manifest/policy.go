package manifest

import (
	"net/netip"
	"strconv"
	"strings"

	"appswitch.io/internal/ax"
	"go.yaml.in/yaml/v3"
)

// policy reads the fields of a policy, those as REST shows them as well, and returns it in its canonical form.
func (d document) policy(fs fields) (p ax.Policy, err error) {
	if err := d.known(KindPolicy, fs, "kind", "name", "action", "from", "to", "toCidrs", "exceptCidrs", "ports", "protocol", "audit",
		"fromSelector", "toSelector", "portRanges"); err != nil {
		return p, err
	}
	if p.Name, err = d.text(fs, "name"); err != nil {
		return p, err
	}
	if p.Name == "" {
		return p, d.errorf(nil, "name", "missing")
	}
	action, err := d.text(fs, "action")
	if err != nil {
		return p, err
	}
	if p.Action, err = ax.ParsePolicyAction(enum("POLICY_ACTION_", action)); err != nil {
		return p, d.errorf(fs.node("action"), "action", "%v", err)
	}
	if p.From, err = d.selector(fs, "from", "fromSelector"); err != nil {
		return p, err
	}
	if p.To, err = d.selector(fs, "to", "toSelector"); err != nil {
		return p, err
	}
	if p.CIDRs, err = d.cidrs(fs, "toCidrs"); err != nil {
		return p, err
	}
	if p.Except, err = d.cidrs(fs, "exceptCidrs"); err != nil {
		return p, err
	}
	if p.Ports, err = d.policyPorts(fs); err != nil {
		return p, err
	}
	if p.Proto, err = d.protocol(fs); err != nil {
		return p, err
	}
	if p.Audit, err = d.flag(fs, "audit"); err != nil {
		return p, err
	}
	if err := p.Validate(); err != nil {
		name, what, _ := strings.Cut(err.Error(), ": ")
		name = strings.NewReplacer("to_cidrs", "toCidrs", "except_cidrs", "exceptCidrs").Replace(name)
		return p, d.errorf(fs.node(name), name, "%s", strings.ReplaceAll(what, "to_cidrs", "toCidrs"))
	}
	return p.Canonical(), nil
}

// selector reads labels, as fields or as text, and further conditions in a field of their own, as in REST.
func (d document) selector(fs fields, name, further string) (out ax.Selector, err error) {
	if n := fs.node(name); n != nil && n.Kind == yaml.MappingNode {
		labels, err := d.labels(fs, name)
		if err != nil {
			return nil, err
		}
		out = labels.Selector()
	} else if out, err = d.selectorText(fs, name); err != nil {
		return nil, err
	}
	rest, err := d.selectorText(fs, further)
	return append(out, rest...), err
}

func (d document) selectorText(fs fields, name string) (ax.Selector, error) {
	text, err := d.text(fs, name)
	if err != nil {
		return nil, err
	}
	s, err := ax.ParseSelector(text)
	if err != nil {
		return nil, d.errorf(fs.node(name), name, "%v, or fields such as {role: test}", err)
	}
	return s, nil
}

// labels reads fields, each a label.
func (d document) labels(fs fields, name string) (ax.Labels, error) {
	out := ax.Labels{}
	n := fs.node(name)
	pairs, err := d.mapping(name, n)
	if err != nil {
		return nil, err
	}
	for _, f := range pairs {
		if out[f.name], err = d.scalar(join(name, f.name), f.value); err != nil {
			return nil, err
		}
	}
	if err := out.Validate(); err != nil {
		return nil, d.errorf(n, name, "%v", err)
	}
	return out, nil
}

func (d document) cidrs(fs fields, name string) (out []netip.Prefix, err error) {
	err = d.list(fs, name, func(name string, n *yaml.Node) error {
		text, err := d.scalar(name, n)
		if err != nil {
			return err
		}
		c, err := ax.ParseCIDR(text)
		if err != nil {
			return d.errorf(n, name, "%v", err)
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

// policyPorts reads ports and ranges, which may be in a field of their own, as in REST.
func (d document) policyPorts(fs fields) (out []ax.PortRange, err error) {
	add := func(name string, n *yaml.Node, text string) error {
		r, err := ax.ParsePortRange(text)
		if err != nil {
			return d.errorf(n, name, "%v", err)
		}
		out = append(out, r)
		return nil
	}
	if err := d.list(fs, "ports", func(name string, n *yaml.Node) error {
		text, err := d.scalar(name, n)
		if err != nil {
			return err
		}
		return add(name, n, text)
	}); err != nil {
		return nil, err
	}
	err = d.list(fs, "portRanges", func(name string, n *yaml.Node) error {
		both, err := d.mapping(name, n)
		if err == nil {
			err = d.known("portRanges", both, "first", "last")
		}
		if err != nil {
			return err
		}
		first, err1 := d.text(both, "first")
		last, err2 := d.text(both, "last")
		if err1 != nil || err2 != nil {
			return d.errorf(n, name, "want numbers for first and last")
		}
		return add(name, n, first+"-"+last)
	})
	return out, err
}

func (d document) protocol(fs fields) (ax.Protocol, error) {
	text, err := d.text(fs, "protocol")
	if text = enum("PROTOCOL_", text); err != nil || text == "" {
		return 0, err
	}
	p, err := ax.ParseProtocol(text)
	if err != nil {
		return 0, d.errorf(fs.node("protocol"), "protocol", "%q: want tcp or udp", text)
	}
	return p, nil
}

func (d document) flag(fs fields, name string) (bool, error) {
	text, err := d.text(fs, name)
	if err != nil || text == "" {
		return false, err
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, d.errorf(fs.node(name), name, "%q: want true or false", text)
	}
	return on, nil
}
