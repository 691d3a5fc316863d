package axpb

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"appswitch.io/internal/ax"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

// Virtual services: records that people write.

// VirtualServiceFrom reads a virtual service; its address may be missing.
func VirtualServiceFrom(p *typev1.VirtualService) (ax.VirtualService, error) {
	v, err := virtualServiceFrom(p)
	if err == nil {
		err = v.Validate()
	}
	if err != nil {
		return ax.VirtualService{}, fmt.Errorf("virtual_service.%w", err)
	}
	return v, nil
}

func virtualServiceFrom(p *typev1.VirtualService) (v ax.VirtualService, err error) {
	v.Name = p.GetName()
	if v.Balancer, err = BalancerFrom(p.GetBalancer()); err != nil {
		return v, err
	}
	if v.Addr, err = optionalAddrFrom("ip", p.GetIp()); err != nil {
		return v, err
	}
	if v.Source, err = optionalAddrFrom("source_ip", p.GetSourceIp()); err != nil {
		return v, err
	}
	if v.Affinity, err = durationFrom("session_affinity", p.GetSessionAffinity()); err != nil {
		return v, err
	}
	for _, m := range p.GetPorts() {
		vp, err1 := PortFrom("ports.virtual_port", m.GetVirtualPort())
		bp, err2 := PortFrom("ports.backend_port", m.GetBackendPort())
		if err := errors.Join(err1, err2); err != nil {
			return v, err
		}
		v.Ports = append(v.Ports, ax.PortMapping{Virtual: vp, Backend: bp})
	}
	weighed := map[string]bool{}
	for _, s := range p.GetBackends() {
		b, err := ax.ParseBackend(s)
		if err != nil {
			return v, fmt.Errorf("backends: %w", err)
		}
		if w, ok := p.GetWeights()[s]; ok {
			weighed[s] = true
			b.Weight = uint16(min(w, ax.MaxWeight+1)) // which Validate refuses
		}
		v.Backends = append(v.Backends, b)
	}
	for _, s := range slices.Sorted(maps.Keys(p.GetWeights())) {
		if !weighed[s] {
			return v, fmt.Errorf("weights: %q is not one of the backends as they are written", s)
		}
	}
	return v, nil
}

// VirtualService writes a virtual service.
func VirtualService(v ax.VirtualService) *typev1.VirtualService {
	p := &typev1.VirtualService{
		Name: v.Name, Balancer: Balancer(v.Balancer), Ip: optionalAddr(v.Addr), SessionAffinity: duration(v.Affinity), SourceIp: optionalAddr(v.Source),
	}
	for _, m := range v.Ports {
		p.Ports = append(p.Ports, &typev1.PortMapping{VirtualPort: uint32(m.Virtual), BackendPort: uint32(m.Backend)})
	}
	for _, b := range v.Backends {
		p.Backends = append(p.Backends, b.String())
		if b.Weight > 1 {
			if p.Weights == nil {
				p.Weights = map[string]uint32{}
			}
			p.Weights[b.String()] = uint32(b.Weight)
		}
	}
	return p
}
