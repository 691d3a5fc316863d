package doors

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTable(t *testing.T) (*Table, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	table, err := New(reg)
	if err != nil {
		t.Fatal(err)
	}
	return table, reg
}

var at = netip.MustParseAddrPort

func TestProxiesComeAndGo(t *testing.T) {
	table, _ := newTable(t)
	dialers := []netip.AddrPort{at("10.0.2.16:80")}
	id1, remove1, err := table.AddProxy(Proxy{Protocol: ax.TCP, Listener: at("10.0.2.15:8080"), Dialers: dialers})
	if err != nil {
		t.Fatal(err)
	}
	id2, remove2, err := table.AddProxy(Proxy{Protocol: ax.UDP, Listener: at("10.0.2.15:53")})
	if err != nil {
		t.Fatal(err)
	}
	dialers[0] = at("1.2.3.4:5") // the table keeps its own copy
	got := table.Proxies()
	if len(got) != 2 || got[0].ID != id1 || got[1].ID != id2 || id1 == id2 || got[0].Dialers[0] != at("10.0.2.16:80") {
		t.Fatalf("got %+v", got)
	}
	got[0].Dialers[0] = at("1.2.3.4:5") // and so does the caller
	if table.Proxies()[0].Dialers[0] != at("10.0.2.16:80") {
		t.Error("the table was changed from outside")
	}
	remove1()
	remove1()
	if got := table.Proxies(); len(got) != 1 || got[0].ID != id2 {
		t.Errorf("after the removal: %+v", got)
	}
	remove2()
	if got := table.Proxies(); len(got) != 0 {
		t.Errorf("at the end: %+v", got)
	}
}

func TestOnePortAnswersForOneService(t *testing.T) {
	table, reg := newTable(t)
	add := func(p ax.Protocol, node, service string) (func(), error) {
		return table.AddExpose(Expose{Protocol: p, Node: at(node), Service: at(service)})
	}
	remove, err := add(ax.TCP, "10.0.2.15:8080", "1.1.1.1:80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add(ax.TCP, "10.0.2.15:8080", "2.2.2.2:80"); err == nil || !strings.Contains(err.Error(), "1.1.1.1:80") {
		t.Errorf("got %v, want an error that names the holder", err)
	}
	for _, e := range []struct {
		p    ax.Protocol
		node string
	}{{ax.UDP, "10.0.2.15:8080"}, {ax.TCP, "10.0.2.15:80"}, {ax.TCP, "10.0.2.9:9000"}} {
		if _, err := add(e.p, e.node, "2.2.2.2:80"); err != nil {
			t.Error(err)
		}
	}
	var order []string
	for _, e := range table.Exposes() {
		order = append(order, e.Node.String()+"/"+e.Protocol.String())
	}
	if want := []string{"10.0.2.9:9000/tcp", "10.0.2.15:80/tcp", "10.0.2.15:8080/tcp", "10.0.2.15:8080/udp"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	remove()
	if _, err := add(ax.TCP, "10.0.2.15:8080", "2.2.2.2:80"); err != nil {
		t.Errorf("the port is free again: %v", err)
	}
	remove() // by its first owner: must not take the new one away
	if n := len(table.Exposes()); n != 4 {
		t.Errorf("%d exposed ports, want 4", n)
	}
	want := "# HELP appswitch_gateway_doors Open doors of the node.\n# TYPE appswitch_gateway_doors gauge\nappswitch_gateway_doors{kind=\"expose\"} 4\nappswitch_gateway_doors{kind=\"proxy\"} 0\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "appswitch_gateway_doors"); err != nil {
		t.Error(err)
	}
}

func TestTheTableIsBounded(t *testing.T) {
	table, _ := newTable(t)
	node := netip.MustParseAddr("10.0.2.15")
	for i := range MaxDoors {
		if _, _, err := table.AddProxy(Proxy{Protocol: ax.TCP}); err != nil {
			t.Fatal(err)
		}
		if _, err := table.AddExpose(Expose{Protocol: ax.TCP, Node: netip.AddrPortFrom(node, uint16(i+1))}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := table.AddProxy(Proxy{}); err == nil {
		t.Error("one proxy too many was taken")
	}
	if _, err := table.AddExpose(Expose{Protocol: ax.UDP, Node: netip.AddrPortFrom(node, 1)}); err == nil {
		t.Error("one exposed port too many was taken")
	}
}

func TestConcurrentUse(t *testing.T) {
	table, _ := newTable(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				_, removeProxy, err := table.AddProxy(Proxy{Protocol: ax.TCP})
				if err != nil {
					t.Error(err)
					return
				}
				removeExpose, err := table.AddExpose(Expose{Node: netip.AddrPortFrom(netip.MustParseAddr("10.0.2.15"), uint16(i+1))})
				if err != nil {
					t.Error(err)
					return
				}
				table.Proxies()
				table.Exposes()
				removeProxy()
				removeExpose()
			}
		})
	}
	wg.Wait()
	if len(table.Proxies()) != 0 || len(table.Exposes()) != 0 {
		t.Error("something is left")
	}
}
