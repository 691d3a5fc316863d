package ax_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
)

func TestParseBackend(t *testing.T) {
	addr := netip.MustParseAddr
	for text, want := range map[string]ax.Backend{
		"1.1.1.1":               {Addr: addr("1.1.1.1"), Weight: 1},
		"1.1.1.1:80":            {Addr: addr("1.1.1.1"), Port: 80, Weight: 1},
		"1.1.1.1:*":             {Addr: addr("1.1.1.1"), External: true, Weight: 1},
		"2001:db8::1":           {Addr: addr("2001:db8::1"), Weight: 1},
		"[2001:db8::1]:80":      {Addr: addr("2001:db8::1"), Port: 80, Weight: 1},
		"[2001:db8::1]:*=1000":  {Addr: addr("2001:db8::1"), External: true, Weight: 1000},
		"1.1.1.1=7":             {Addr: addr("1.1.1.1"), Weight: 7},
		"[::ffff:1.1.1.1]:80=2": {Addr: addr("1.1.1.1"), Port: 80, Weight: 2},
	} {
		got, err := ax.ParseWeightedBackend(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
		back, err := ax.ParseBackend(got.String())
		if back.Weight = got.Weight; err != nil || back != got {
			t.Errorf("%q is written as %q and read as %+v, %v", text, got, back, err)
		}
	}
	for _, text := range []string{"", "web", "1.1.1", "1.1.1.1:0", "1.1.1.1:65536", "1.1.1.1:", ":80", "*", ":*", "fe80::1%eth0", "[fe80::1%eth0]:80", "1.1.1.1=", "1.1.1.1=0", "1.1.1.1=1001", "1.1.1.1=x", "1.1.1.1:80:*"} {
		if got, err := ax.ParseWeightedBackend(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func FuzzParseBackend(f *testing.F) {
	for _, s := range []string{"1.1.1.1", "[::1]:80=3", "1.1.1.1:*", "[[1.1.1.1]:*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ax.ParseWeightedBackend(s)
		if err != nil {
			return
		}
		v := ax.VirtualService{Name: "v", Balancer: ax.Random, Backends: []ax.Backend{b}, Ports: []ax.PortMapping{{Virtual: 1, Backend: 2}}}
		if err := v.Validate(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if back, err := ax.ParseBackend(b.String()); err != nil || back.Addr != b.Addr || back.Port != b.Port || back.External != b.External {
			t.Fatalf("%q is written as %q and read as %+v, %v", s, b, back, err)
		}
	})
}

func TestVirtualServiceValidate(t *testing.T) {
	good := func() ax.VirtualService {
		return ax.VirtualService{
			Name: "v", Balancer: ax.Maglev, Ports: []ax.PortMapping{{Virtual: 80, Backend: 8080}}, Affinity: time.Minute,
			Backends: []ax.Backend{{Addr: netip.MustParseAddr("1.1.1.1"), Weight: 1}, {Addr: netip.MustParseAddr("1.1.1.1"), Port: 80, Weight: 2}},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*ax.VirtualService){
		"name: missing":                 func(v *ax.VirtualService) { v.Name = "" },
		"balancer: balancer(9)":         func(v *ax.VirtualService) { v.Balancer = 9 },
		"balancer: balancer(0)":         func(v *ax.VirtualService) { v.Balancer = 0 },
		"ports: 257 mappings":           func(v *ax.VirtualService) { v.Ports = make([]ax.PortMapping, 257) },
		"ports: port 0 in 0:80":         func(v *ax.VirtualService) { v.Ports[0] = ax.PortMapping{Backend: 80} },
		"ports: 80:8080 is given twice": func(v *ax.VirtualService) { v.Ports = append(v.Ports, v.Ports[0]) },
		"backends: 257":                 func(v *ax.VirtualService) { v.Backends = make([]ax.Backend, 257) },
		"backends: 1.1.1.1:80 is given": func(v *ax.VirtualService) { v.Backends = append(v.Backends, v.Backends[1]) },
		"backends: invalid IP":          func(v *ax.VirtualService) { v.Backends[0].Addr = netip.Addr{} },
		"weights: 0 for 1.1.1.1":        func(v *ax.VirtualService) { v.Backends[0].Weight = 0 },
		"weights: 1001 for 1.1.1.1":     func(v *ax.VirtualService) { v.Backends[0].Weight = 1001 },
		"has a port and is for all":     func(v *ax.VirtualService) { v.Backends[1].External = true },
		"1.1.1.1:* needs ports":         func(v *ax.VirtualService) { v.Backends[0].External, v.Ports = true, nil },
		"session_affinity: 1ms":         func(v *ax.VirtualService) { v.Affinity = time.Millisecond },
		"session_affinity: 25h":         func(v *ax.VirtualService) { v.Affinity = 25 * time.Hour },
	} {
		v := good()
		if spoil(&v); v.Validate() == nil || !strings.Contains(v.Validate().Error(), want) {
			t.Errorf("%q: %v", want, v.Validate())
		}
	}
}

// TestPortsOfBackends: what one direction says, the other says as well.
func TestPortsOfBackends(t *testing.T) {
	a := netip.MustParseAddr("1.1.1.1")
	plain, ported, outside := ax.Backend{Addr: a}, ax.Backend{Addr: a, Port: 8080}, ax.Backend{Addr: a, External: true}
	all := ax.VirtualService{}
	some := ax.VirtualService{Ports: []ax.PortMapping{{80, 8080}, {81, 8080}, {443, 8443}, {443, 9443}}}
	for _, c := range []struct {
		v       ax.VirtualService
		b       ax.Backend
		virtual uint16
		want    []uint16
	}{
		{all, plain, 80, []uint16{80}}, {all, ported, 80, nil}, {all, ported, 8080, []uint16{8080}}, {all, outside, 80, nil},
		{some, plain, 80, []uint16{8080}}, {some, plain, 443, []uint16{8443, 9443}}, {some, plain, 8080, nil},
		{some, ported, 443, []uint16{8080}}, {some, ported, 8080, nil}, {some, outside, 81, []uint16{8080}},
	} {
		got := c.v.BackendPorts(c.b, c.virtual)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s through port %d of %v: %v, want %v", c.b, c.virtual, c.v.Ports, got, c.want)
		}
		for _, port := range got {
			if !slices.Contains(c.v.VirtualPorts(c.b, port), c.virtual) {
				t.Errorf("port %d of %s is reached through %v, want %d as well", port, c.b, c.v.VirtualPorts(c.b, port), c.virtual)
			}
		}
	}
	if !all.Covers(1) || !some.Covers(443) || some.Covers(8080) {
		t.Error("a virtual service speaks for its own ports, or for all if it names none")
	}
}

func TestParseBalancer(t *testing.T) {
	for _, b := range ax.Balancers() {
		if got, err := ax.ParseBalancer(strings.ToUpper(b.String())); err != nil || got != b {
			t.Errorf("%s is read as %s, %v", b, got, err)
		}
	}
	if got, err := ax.ParseBalancer(""); err != nil || got != ax.Random {
		t.Errorf("nothing is read as %s, %v", got, err)
	}
	if _, err := ax.ParseBalancer("Sticky"); err == nil {
		t.Error("Sticky is a balancer")
	}
}

func TestParsePortMapping(t *testing.T) {
	for text, want := range map[string]ax.PortMapping{"80:8080": {80, 8080}, " 443 ": {443, 443}} {
		if got, err := ax.ParsePortMapping(text); err != nil || got != want {
			t.Errorf("%q is read as %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "80:", ":80", "0", "80:0", "65536", "a:b", "80:81:82", "+80", "-1"} {
		if got, err := ax.ParsePortMapping(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
