package route_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
)

// bigTable is a snapshot of n endpoints, 8 to a service, on 50 nodes.
func bigTable(n int) route.Delta {
	d := route.Delta{Revision: 1, Full: true}
	for i := range 50 {
		d.Nodes = append(d.Nodes, ax.Node{Name: ax.NodeName(fmt.Sprint("node", i)), Addr: netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}), ReservedPorts: []uint16{6662, 6663, 6664, 6665}})
	}
	for i := range n / 8 {
		d.Upserts = append(d.Upserts, bigService(i, 8))
	}
	return d
}

func bigService(i, endpoints int) route.Service {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80)
	svc := route.Service{Key: route.ServiceKey{Proto: ax.TCP, Addr: addr}, Balancer: ax.RoundRobin}
	for j := range endpoints {
		svc.Endpoints = append(svc.Endpoints, &ax.Endpoint{
			ID: ax.EndpointID(fmt.Sprintf("%08x/tcp/%s/%04d", i, addr, j)), App: "00000001", Node: ax.NodeName(fmt.Sprint("node", j%50)), Proto: ax.TCP, Service: addr,
			Host:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(j % 50)}), uint16(40000+i)),
			Labels: ax.Labels{"zone": "default", "role": "web"},
		})
	}
	return svc
}

func BenchmarkDecide(b *testing.B) {
	s := route.Empty().Apply(bigTable(50000))
	s = s.Apply(route.Delta{Revision: 2, Upserts: []route.Service{bigService(7000, 500)}})
	random := bigService(7001, 8)
	random.Balancer = ax.Random
	s = s.Apply(route.Delta{Revision: 3, Upserts: []route.Service{random}})
	for i, b := range ax.Balancers() {
		svc := bigService(7002+i, 8)
		svc.Balancer, svc.Weights = b, []uint16{1, 2, 3, 4, 5, 6, 7, 8}
		s = s.Apply(route.Delta{Revision: 3, Upserts: []route.Service{svc}})
	}
	sticky := bigService(7010, 8)
	sticky.Affinity = time.Minute
	s = s.Apply(route.Delta{Revision: 3, Upserts: []route.Service{sticky}})
	policies := route.Delta{Revision: 4}
	for i := range 1000 {
		policies.Policies = append(policies.Policies, policy(fmt.Sprint("p", i), ax.PolicyDeny, ax.Labels{"team": fmt.Sprint(i)}, nil))
	}
	withPolicies := s.Apply(route.Delta{Revision: 4, Policies: policies.Policies[:100]})
	withMany := s.Apply(policies)
	outside := route.Delta{Revision: 4}
	for i := range 16 {
		outside.Policies = append(outside.Policies, ax.Policy{
			Name: fmt.Sprint("p", i), Action: ax.PolicyDeny, CIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i))}, Audit: i%2 == 0,
		})
	}
	withOutside := s.Apply(outside)
	for _, c := range []struct {
		name string
		s    *route.Snapshot
		dest netip.AddrPort
	}{
		{"roundrobin8", s, bigService(77, 0).Key.Addr},
		{"random8", s, random.Key.Addr},
		{"endpoints500", s, bigService(7000, 0).Key.Addr},
		{"weights8", s, bigService(7002, 0).Key.Addr},
		{"weightedroundrobin8", s, bigService(7003, 0).Key.Addr},
		{"leastconn8", s, bigService(7004, 0).Key.Addr},
		{"maglev8", s, bigService(7005, 0).Key.Addr},
		{"affinity8", s, sticky.Key.Addr},
		{"policies100", withPolicies, bigService(77, 0).Key.Addr},
		{"policies1000", withMany, bigService(77, 0).Key.Addr},
		{"policiesmatching16", withOutside, bigService(77, 0).Key.Addr},
		{"externalpolicies16", withOutside, netip.MustParseAddrPort("93.184.216.34:443")},
		{"host", s, netip.MustParseAddrPort("10.0.2.1:40077")},
		{"noendpoint", s, netip.MustParseAddrPort("198.18.0.1:81")},
		{"external", s, netip.MustParseAddrPort("93.184.216.34:443")},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := route.NewDecider(route.Config{})
			f := ax.Flow{App: "00000002", Labels: ax.DefaultLabels(), Proto: ax.TCP, Dest: c.dest}
			b.ReportAllocs()
			for b.Loop() {
				d.Decide(c.s, f, nil)
			}
		})
	}
}

func BenchmarkDecideParallel(b *testing.B) {
	s := route.Empty().Apply(bigTable(50000))
	d := route.NewDecider(route.Config{})
	f := ax.Flow{Labels: ax.DefaultLabels(), Proto: ax.TCP, Dest: bigService(77, 0).Key.Addr}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d.Decide(s, f, nil)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	full := bigTable(50000)
	s := route.Empty().Apply(full)
	b.Run("full50k", func(b *testing.B) {
		for b.Loop() {
			route.Empty().Apply(full)
		}
	})
	b.Run("oneOf50k", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.Apply(route.Delta{Revision: 2, Upserts: []route.Service{bigService(i%6000, 8)}})
		}
	})
	b.Run("diffOneOf50k", func(b *testing.B) {
		next := s.Apply(route.Delta{Revision: 2, Upserts: []route.Service{bigService(77, 4)}})
		b.ReportAllocs()
		for b.Loop() {
			route.Diff(s, next)
		}
	})
}
