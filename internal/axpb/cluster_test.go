package axpb_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestVirtualServiceRoundTrip(t *testing.T) {
	addr := netip.MustParseAddr
	for _, v := range []ax.VirtualService{
		{Name: "plain", Balancer: ax.Random},
		{
			Name: "full", Addr: addr("2001:db8::9"), Balancer: ax.LeastConn, Affinity: 90 * time.Second, Source: addr("10.0.2.15"),
			Ports: []ax.PortMapping{{Virtual: 80, Backend: 8000}, {Virtual: 443, Backend: 443}},
			Backends: []ax.Backend{
				{Addr: addr("1.1.1.1"), Weight: 3}, {Addr: addr("1.1.1.1"), Port: 81, Weight: 1}, {Addr: addr("2001:db8::1"), Port: 82, Weight: 1000},
				{Addr: addr("192.0.2.7"), External: true, Weight: 2},
			},
		},
	} {
		b, err := proto.Marshal(axpb.VirtualService(v))
		if err != nil {
			t.Fatal(err)
		}
		p := &typev1.VirtualService{}
		if err := proto.Unmarshal(b, p); err != nil {
			t.Fatal(err)
		}
		if back, err := axpb.VirtualServiceFrom(p); err != nil || !reflect.DeepEqual(back, v) {
			t.Errorf("%+v, %v\nwant %+v", back, err, v)
		}
	}
}

func TestVirtualServiceFromRefuses(t *testing.T) {
	for want, p := range map[string]*typev1.VirtualService{
		"virtual_service.name: missing":                     {},
		"virtual_service.balancer":                          {Name: "v", Balancer: 77},
		"virtual_service.ip":                                {Name: "v", Ip: "x"},
		"virtual_service.source_ip":                         {Name: "v", SourceIp: "x"},
		"virtual_service.session_affinity: -1s":             {Name: "v", SessionAffinity: durationpb.New(-time.Second)},
		"virtual_service.session_affinity: 1m59.9":          {Name: "v", SessionAffinity: &durationpb.Duration{Seconds: 120, Nanos: -1}},
		"virtual_service.session_affinity: 48h":             {Name: "v", SessionAffinity: durationpb.New(48 * time.Hour)},
		"virtual_service.ports.virtual_port: 65536":         {Name: "v", Ports: []*typev1.PortMapping{{VirtualPort: 65536}}},
		"virtual_service.ports.backend_port: 65536":         {Name: "v", Ports: []*typev1.PortMapping{{VirtualPort: 1, BackendPort: 65536}}},
		`virtual_service.backends: "x"`:                     {Name: "v", Backends: []string{"x"}},
		"virtual_service.backends: 1.1.1.1 is given":        {Name: "v", Backends: []string{"1.1.1.1", "::ffff:1.1.1.1"}},
		`virtual_service.weights: "1.1.1.2" is not one of`:  {Name: "v", Backends: []string{"1.1.1.1"}, Weights: map[string]uint32{"1.1.1.2": 1}},
		"virtual_service.weights: 1001 for 1.1.1.1: want 1": {Name: "v", Backends: []string{"1.1.1.1"}, Weights: map[string]uint32{"1.1.1.1": 1<<32 - 1}},
	} {
		if _, err := axpb.VirtualServiceFrom(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestExternalEndpointRoundTrip(t *testing.T) {
	for _, a := range []string{"192.0.2.7:443", "[2001:db8::1]:443"} {
		e := ax.ExternalEndpoint(ax.UDP, netip.MustParseAddrPort(a))
		if back, err := axpb.EndpointFrom(axpb.Endpoint(*e)); err != nil || !reflect.DeepEqual(back, *e) {
			t.Errorf("%+v, %v\nwant %+v", back, err, e)
		}
		e.External = false
		if _, err := axpb.EndpointFrom(axpb.Endpoint(*e)); err == nil {
			t.Errorf("%s has neither application nor node", a)
		}
	}
}

// FuzzVirtualServiceFrom: what is read is valid, and is read again as it was.
func FuzzVirtualServiceFrom(f *testing.F) {
	for _, p := range []*typev1.VirtualService{
		{Name: "v"},
		{Name: "v", Ip: "1.1.1.1", Balancer: 4, Backends: []string{"1.1.1.1", "[::1]:80", "192.0.2.7:*"}, Weights: map[string]uint32{"1.1.1.1": 3}, Ports: []*typev1.PortMapping{{VirtualPort: 1, BackendPort: 2}}},
		{Name: "v", SessionAffinity: durationpb.New(time.Minute), SourceIp: "::1"},
	} {
		b, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &typev1.VirtualService{}
		if proto.Unmarshal(b, p) != nil {
			return
		}
		v, err := axpb.VirtualServiceFrom(p)
		if err != nil {
			return
		}
		if err := v.Validate(); err != nil {
			t.Fatal(err)
		}
		if back, err := axpb.VirtualServiceFrom(axpb.VirtualService(v)); err != nil || !reflect.DeepEqual(back, v) {
			t.Fatalf("%+v, %v\nwant %+v", back, err, v)
		}
	})
}
