package axpb_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	"appswitch.io/internal/route"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func routesEndpoint(i int, labels ax.Labels) *ax.Endpoint {
	return &ax.Endpoint{
		ID: ax.EndpointID(fmt.Sprintf("%08x/tcp/1.1.1.1:80/40000", i)), App: "0000000a", Node: "n1", Cluster: "c", Proto: ax.TCP,
		Service: netip.MustParseAddrPort("1.1.1.1:80"), Host: netip.MustParseAddrPort("10.0.2.1:40000"), Labels: labels, Name: "web", Stale: i%2 == 1,
	}
}

func routesService(i, endpoints int, labels ax.Labels) route.Service {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80)
	s := route.Service{Key: route.ServiceKey{Proto: ax.UDP, Addr: addr}, Balancer: ax.BalancerType(1 + i%4)}
	if i%3 == 2 {
		s.Affinity, s.Source = time.Minute, netip.MustParseAddr("10.0.2.1")
	}
	for j := range endpoints {
		s.Endpoints = append(s.Endpoints, routesEndpoint(j, labels))
		if i%2 == 0 {
			s.Weights = append(s.Weights, uint16(1+j%ax.MaxWeight))
		}
	}
	return s
}

// transmit sends a delta through bytes and returns what a reader makes of it, and in how many messages.
func transmit(t *testing.T, r *axpb.RoutesReader, d route.Delta) (got route.Delta, messages int) {
	t.Helper()
	done := false
	for m := range axpb.Routes(d) {
		if done {
			t.Fatal("a message after the complete one")
		}
		messages++
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > axpb.MaxRoutesMessage {
			t.Fatalf("message of %d bytes", len(b))
		}
		back := &routerv1.WatchRoutesResponse{}
		if err := proto.Unmarshal(b, back); err != nil {
			t.Fatal(err)
		}
		if got, done, err = r.Read(back); err != nil {
			t.Fatal(err)
		}
	}
	if !done {
		t.Fatal("the last message is not complete")
	}
	return got, messages
}

func TestRoutesRoundTrip(t *testing.T) {
	addr := netip.MustParseAddr
	labels := ax.Labels{"zone": "default"}
	long := ax.Labels{}
	for i := range ax.MaxLabels {
		long[fmt.Sprintf("%063d", i)] = strings.Repeat("v", ax.MaxLabelLength)
	}
	start := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	everything := route.Delta{
		Revision: 9, Upserts: []route.Service{routesService(1, 2, labels), routesService(2, 1, labels)},
		Removes: []route.ServiceKey{routesService(3, 0, nil).Key}, Claims: []netip.Addr{addr("1.1.1.1"), addr("2001:db8::1")}, ReleasedClaims: []netip.Addr{addr("1.1.1.2")},
		Nodes: []ax.Node{{Name: "n1", Cluster: "c", Addr: addr("10.0.2.1"), Version: "v", Driver: "user", Start: start, ReservedPorts: []uint16{53, 6665}}}, RemovedNodes: []ax.NodeName{"n2"},
		Policies: []ax.Policy{{
			Name: "p", Action: ax.PolicyDeny, From: append(labels.Selector(), ax.Condition{Key: "zone", Op: ax.SelectNotIn, Values: []string{"x", "y"}}), To: ax.Labels{"a": "b"}.Selector(),
			Ports: []ax.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8100}}, Proto: ax.UDP, Audit: true,
			CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}, Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		}}, RemovedPolicies: []string{"q"},
	}
	many := route.Delta{Revision: 10}
	for i := range 60000 {
		many.Claims = append(many.Claims, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
		many.Removes = append(many.Removes, routesService(i, 0, nil).Key)
	}
	large := route.Delta{Revision: 11, Upserts: []route.Service{routesService(1, 1, labels), routesService(2, 3000, long), routesService(3, 1, labels)}}
	r := &axpb.RoutesReader{}
	for _, c := range []struct {
		name      string
		delta     route.Delta
		atLeast   int
		fullFirst bool
	}{
		{"empty snapshot", route.Delta{Revision: 1, Full: true}, 1, true},
		{"everything", everything, 1, false},
		{"confirmation", route.Delta{Revision: 9}, 1, false},
		{"many small things", many, 4, false},
		{"one service larger than a message", large, 20, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, messages := transmit(t, r, c.delta)
			if messages < c.atLeast || c.atLeast == 1 && messages != 1 {
				t.Errorf("%d messages, want %d", messages, c.atLeast)
			}
			if !reflect.DeepEqual(got, c.delta) {
				t.Errorf("got %.2000v\nwant %.2000v", fmt.Sprint(got), fmt.Sprint(c.delta))
			}
		})
	}
}

func TestRoutesFullTable(t *testing.T) {
	d := route.Delta{Revision: 3, Full: true, Nodes: []ax.Node{{Name: "n1", Addr: netip.MustParseAddr("10.0.2.1")}}}
	for i := range 3000 {
		d.Upserts = append(d.Upserts, routesService(i, 4, ax.Labels{"zone": "default"}))
	}
	s := route.Empty().Apply(d)
	got, messages := transmit(t, &axpb.RoutesReader{}, s.Full())
	if messages < 3 {
		t.Errorf("%d messages for 12,000 endpoints", messages)
	}
	if back := route.Empty().Apply(got); !reflect.DeepEqual(back.Full(), s.Full()) {
		t.Error("the snapshot is another one after the journey")
	}
}

func TestRoutesReaderRefuses(t *testing.T) {
	good := func() *routerv1.WatchRoutesResponse {
		for m := range axpb.Routes(route.Delta{Full: true, Upserts: []route.Service{routesService(1, 1, nil)}}) {
			return m
		}
		return nil
	}
	for want, spoil := range map[string]func(*routerv1.WatchRoutesResponse){
		"does not start with a snapshot": func(m *routerv1.WatchRoutesResponse) { m.Full = false },
		"upserts.protocol":               func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].Protocol = 9 },
		"upserts.address":                func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].Address = nil },
		"upserts.balancer":               func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].Balancer = 9 },
		"upserts.source_ip":              func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].SourceIp = "here" },
		"upserts.session_affinity":       func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].SessionAffinity = durationpb.New(-1) },
		"2 for 1 endpoints":              func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].Weights = []uint32{1, 1} },
		"upserts.weights":                func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].Weights = []uint32{1001} },
		"only a part": func(m *routerv1.WatchRoutesResponse) {
			m.Upserts = append(m.Upserts, proto.CloneOf(m.Upserts[0]))
			m.Upserts[1].Weights = []uint32{1}
		},
		"host address":    func(m *routerv1.WatchRoutesResponse) { m.Upserts[0].Endpoints[0].HostAddress.Port = 0 },
		"removes.address": func(m *routerv1.WatchRoutesResponse) { m.Removes = []*routerv1.ServiceKey{{Protocol: 1}} },
		"claims":          func(m *routerv1.WatchRoutesResponse) { m.Claims = []string{"x"} },
		"released_claims": func(m *routerv1.WatchRoutesResponse) { m.ReleasedClaims = []string{"fe80::1%eth0"} },
		"node.ip":         func(m *routerv1.WatchRoutesResponse) { m.Nodes = []*typev1.Node{{Name: "n"}} },
		"policy.action":   func(m *routerv1.WatchRoutesResponse) { m.Policies = []*typev1.Policy{{Name: "p"}} },
	} {
		r, m := &axpb.RoutesReader{}, good()
		spoil(m)
		if _, complete, err := r.Read(m); err == nil || complete || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if _, complete, err := r.Read(good()); err != nil || !complete {
			t.Errorf("a new snapshot after the refusal: %v", err)
		}
	}
	r, endless := &axpb.RoutesReader{}, good()
	endless.Complete = false
	for range 1023 {
		endless.Upserts[0].Endpoints = append(endless.Upserts[0].Endpoints, endless.Upserts[0].Endpoints[0])
	}
	var err error
	for n := 0; err == nil; n += len(endless.Upserts[0].Endpoints) {
		if n > axpb.MaxRoutesEndpoints {
			t.Fatal("a snapshot without end was read")
		}
		_, _, err = r.Read(endless)
		endless.Full = false
	}
}

func TestRoutesSnapshotInterruptsDelta(t *testing.T) {
	r := &axpb.RoutesReader{}
	transmit(t, r, route.Delta{Revision: 1, Full: true})
	if _, complete, err := r.Read(&routerv1.WatchRoutesResponse{Revision: 2, Claims: []string{"1.1.1.1"}}); complete || err != nil {
		t.Fatal(complete, err)
	}
	got, _ := transmit(t, r, route.Delta{Revision: 3, Full: true, RemovedPolicies: []string{"p"}})
	if len(got.Claims) != 0 || !got.Full {
		t.Errorf("got %+v, want the new snapshot alone", got)
	}
}

func TestVerdicts(t *testing.T) {
	for _, v := range []ax.Verdict{ax.Allow, ax.Deny, ax.Passthrough} {
		if got, err := axpb.VerdictFrom(axpb.Verdict(v)); got != v || err != nil {
			t.Errorf("%v came back as %v, %v", v, got, err)
		}
	}
	if _, err := axpb.VerdictFrom(routerv1.Verdict_VERDICT_UNSPECIFIED); err == nil || axpb.Verdict(0) != routerv1.Verdict_VERDICT_UNSPECIFIED {
		t.Error("no verdict was taken for one")
	}
}

func FuzzRoutesReader(f *testing.F) {
	for m := range axpb.Routes(route.Delta{Full: true, Upserts: []route.Service{routesService(1, 2, ax.Labels{"a": "b"})}, Claims: []netip.Addr{netip.MustParseAddr("1.1.1.1")}}) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &routerv1.WatchRoutesResponse{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		m.Full = true
		d, complete, err := (&axpb.RoutesReader{}).Read(m)
		if err != nil || !complete {
			return
		}
		s := route.Empty().Apply(d)
		got, _ := transmit(t, &axpb.RoutesReader{}, s.Full())
		if back := route.Empty().Apply(got); back.Size() != s.Size() {
			t.Fatalf("size %+v, after another journey %+v", s.Size(), back.Size())
		}
	})
}
