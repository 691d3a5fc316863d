package manifest

import (
	"bytes"
	"errors"
	"fmt"

	"appswitch.io/internal/ax"
	"go.yaml.in/yaml/v3"
)

// The documents as they are written: fields in the order in which people think of them, defaults left out.
type (
	virtualServiceDocument struct {
		Kind            string   `yaml:"kind"`
		Name            string   `yaml:"name"`
		IP              string   `yaml:"ip,omitempty"`
		Balancer        string   `yaml:"balancer"`
		Backends        []string `yaml:"backends,omitempty"`
		Ports           []string `yaml:"ports,omitempty"`
		SessionAffinity string   `yaml:"sessionAffinity,omitempty"`
		SourceIP        string   `yaml:"sourceIp,omitempty"`
	}
	policyDocument struct {
		Kind        string   `yaml:"kind"`
		Name        string   `yaml:"name"`
		Action      string   `yaml:"action"`
		From        any      `yaml:"from,omitempty"`
		To          any      `yaml:"to,omitempty"`
		ToCIDRs     []string `yaml:"toCidrs,omitempty"`
		ExceptCIDRs []string `yaml:"exceptCidrs,omitempty"`
		Ports       []any    `yaml:"ports,omitempty"`
		Protocol    string   `yaml:"protocol,omitempty"`
		Audit       bool     `yaml:"audit,omitempty"`
	}
)

// Write writes an ax.VirtualService or ax.Policy as Parse reads it.
func Write(value any) ([]byte, error) {
	switch v := value.(type) {
	case ax.VirtualService:
		return marshal(writeVirtualService(v))
	case ax.Policy:
		return marshal(writePolicy(v))
	}
	return nil, fmt.Errorf("%T has no document", value)
}

func marshal(document any) ([]byte, error) {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(document), encoder.Close()); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

func writeVirtualService(v ax.VirtualService) virtualServiceDocument {
	out := virtualServiceDocument{Kind: KindVirtualService, Name: v.Name, Balancer: v.Balancer.String()}
	if v.Addr.IsValid() {
		out.IP = v.Addr.String()
	}
	if v.Source.IsValid() {
		out.SourceIP = v.Source.String()
	}
	if v.Affinity != 0 {
		out.SessionAffinity = v.Affinity.String()
	}
	for _, b := range v.Backends {
		text := b.String()
		if b.Weight > 1 {
			text += fmt.Sprintf("=%d", b.Weight)
		}
		out.Backends = append(out.Backends, text)
	}
	for _, m := range v.Ports {
		out.Ports = append(out.Ports, fmt.Sprintf("%d:%d", m.Virtual, m.Backend))
	}
	return out
}

func writePolicy(p ax.Policy) policyDocument {
	out := policyDocument{Kind: KindPolicy, Name: p.Name, Action: p.Action.String(), From: writeSelector(p.From), To: writeSelector(p.To), Audit: p.Audit}
	for _, c := range p.CIDRs {
		out.ToCIDRs = append(out.ToCIDRs, c.String())
	}
	for _, c := range p.Except {
		out.ExceptCIDRs = append(out.ExceptCIDRs, c.String())
	}
	for _, r := range p.Ports {
		if r.First == r.Last {
			out.Ports = append(out.Ports, r.First)
			continue
		}
		out.Ports = append(out.Ports, r.String())
	}
	if p.Proto != 0 {
		out.Protocol = p.Proto.String()
	}
	return out
}

// writeSelector writes labels as fields, and as text what is more than that.
func writeSelector(s ax.Selector) any {
	exact, rest := s.Split()
	switch {
	case len(s) == 0:
		return nil
	case len(rest) == 0:
		return map[string]string(exact)
	}
	return s.String()
}
