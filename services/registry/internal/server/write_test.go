package server

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestWriteAndLists(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		lease := h.grant(t, node("n1", "10.0.0.1"), 10*time.Second)
		e1 := endpoint("a0000001", "n1", "1.1.1.10:80", "10.0.0.1:40000")
		e2 := endpoint("a0000001", "n1", "1.1.1.9:80", "10.0.0.1:40001")
		h.write(t, lease, app("a0000001", "n1", "1.1.1.10"), app("a0000000", "n2", "1.1.1.1"), e1, e2)
		h.write(t, 0, ax.Policy{Name: "p", Action: ax.PolicyDeny}, ax.VirtualService{Name: "Web", Balancer: ax.Random, Addr: netip.MustParseAddr("1.1.1.20")})

		want := []string{
			"nodes/n1", "apps/a0000000", "apps/a0000001", "endpoints/a0000001/tcp/1.1.1.10:80/40000", "endpoints/a0000001/tcp/1.1.1.9:80/40001",
			"vservices/web", "policies/p", "claims/1.1.1.20",
		}
		if got := h.keys(t); !slices.Equal(got, want) {
			t.Errorf("table:\n%q, want\n%q", got, want)
		}
		if got := h.keys(t, registryv1.Kind_KIND_POLICY, registryv1.Kind_KIND_NODE); !slices.Equal(got, []string{"nodes/n1", "policies/p"}) {
			t.Errorf("nodes and policies: %q", got)
		}
		apps, err := h.ListApps(soon(t), &registryv1.ListAppsRequest{})
		if err != nil || len(apps.GetApps()) != 2 || apps.GetApps()[0].GetNode() != "n1" {
			t.Errorf("apps, by node: %v, error %v", apps, err)
		}
		endpoints, err := h.ListEndpoints(soon(t), &registryv1.ListEndpointsRequest{})
		if err != nil || len(endpoints.GetEndpoints()) != 2 || endpoints.GetEndpoints()[0].GetServiceAddress().GetIp() != "1.1.1.9" {
			t.Errorf("endpoints, by address: %v, error %v", endpoints, err)
		}
		nodes, err := h.ListNodes(soon(t), &registryv1.ListNodesRequest{})
		if err != nil || len(nodes.GetNodes()) != 1 {
			t.Errorf("nodes: %v, error %v", nodes, err)
		}

		h.write(t, lease, axpb.Delete(registryv1.Kind_KIND_ENDPOINT, string(e1.ID)), axpb.Delete(registryv1.Kind_KIND_APP, "none"), axpb.Delete(registryv1.Kind_KIND_VIRTUAL_SERVICE, "WEB"))
		if got := h.keys(t, registryv1.Kind_KIND_ENDPOINT, registryv1.Kind_KIND_VIRTUAL_SERVICE); !slices.Equal(got, []string{"endpoints/" + string(e2.ID)}) {
			t.Errorf("after deleting: %q", got)
		}
		if _, err := h.RevokeLease(soon(t), &registryv1.RevokeLeaseRequest{LeaseId: lease}); err != nil {
			t.Fatal(err)
		}
		if got := h.keys(t); !slices.Equal(got, []string{"policies/p", "claims/1.1.1.20"}) {
			t.Errorf("after the lease: %q", got)
		}
	})
}

func TestWriteRefuses(t *testing.T) {
	h := serve(t, memory(t))
	ok := app("a0000001", "n1", "1.1.1.1")
	badIP := axpb.Put(ok)
	badIP.GetPut().GetApp().Ip = "1.1.1"
	many := make([]any, MaxChanges+1)
	for i := range many {
		many[i] = app(fmt.Sprintf("%08d", i), "n1", "1.1.1.1")
	}
	for name, c := range map[string]struct {
		what []any
		says string
	}{
		"nothing":             {nil, "changes"},
		"too many":            {many, "changes"},
		"no operation":        {[]any{ok, &registryv1.Change{}}, "changes[1]"},
		"twice":               {[]any{ok, axpb.Delete(registryv1.Kind_KIND_APP, "a0000001")}, "twice"},
		"bad address":         {[]any{badIP}, "app.ip"},
		"no kind":             {[]any{axpb.Delete(0, "x")}, "kind"},
		"no key":              {[]any{axpb.Delete(registryv1.Kind_KIND_APP, "")}, "key"},
		"long key":            {[]any{axpb.Delete(registryv1.Kind_KIND_APP, strings.Repeat("x", 513))}, "512"},
		"claim":               {[]any{ax.Claim{Addr: netip.MustParseAddr("1.1.1.1")}}, "ClaimAddress"},
		"end of claim":        {[]any{axpb.Delete(registryv1.Kind_KIND_ADDRESS_CLAIM, "1.1.1.1")}, "ClaimAddress"},
		"service without ip":  {[]any{ax.VirtualService{Name: "web", Balancer: ax.Random}}, "virtual_service.ip"},
		"service with spaces": {[]any{ax.VirtualService{Name: "w b", Addr: ok.Addr}}, "virtual_service.name"},
		"node of no cluster":  {[]any{ax.Node{Name: "n", Addr: ok.Addr}}, "node.cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.Write(soon(t), &registryv1.WriteRequest{Changes: changesOf(c.what...)})
			wantCode(t, err, codes.InvalidArgument)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
		})
	}
	if got := h.keys(t); len(got) != 0 {
		t.Errorf("refused writes left %q", got)
	}
	_, err := h.Write(soon(t), &registryv1.WriteRequest{LeaseId: 4711, Changes: changesOf(ok)})
	wantCode(t, err, codes.FailedPrecondition)
}

func TestGrantLeaseRefuses(t *testing.T) {
	h := serve(t, memory(t))
	for name, req := range map[string]*registryv1.GrantLeaseRequest{
		"no node":     {},
		"no address":  {Node: &typev1.Node{Name: "n", Cluster: "c"}},
		"no cluster":  {Node: &typev1.Node{Name: "n", Ip: "10.0.0.1"}},
		"bad name":    {Node: &typev1.Node{Name: "n/1", Cluster: "c", Ip: "10.0.0.1"}},
		"short ttl":   {Node: axpb.Node(node("n", "10.0.0.1")), Ttl: durationpb.New(time.Second)},
		"long ttl":    {Node: axpb.Node(node("n", "10.0.0.1")), Ttl: durationpb.New(2 * time.Hour)},
		"invalid ttl": {Node: axpb.Node(node("n", "10.0.0.1")), Ttl: &durationpb.Duration{Seconds: 5, Nanos: -7}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.GrantLease(soon(t), req)
			wantCode(t, err, codes.InvalidArgument)
		})
	}
	resp, err := h.GrantLease(soon(t), &registryv1.GrantLeaseRequest{Node: axpb.Node(node("n", "10.0.0.1"))})
	if err != nil || resp.GetTtl().AsDuration() != 10*time.Second {
		t.Errorf("grant without a ttl: %v, error %v", resp, err)
	}
}

func TestNodeNameClash(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		lease := h.grant(t, node("n1", "10.0.0.1"), 10*time.Second)
		_, err := h.GrantLease(soon(t), &registryv1.GrantLeaseRequest{Node: axpb.Node(node("n1", "10.0.0.2"))})
		wantCode(t, err, codes.AlreadyExists)
		if !strings.Contains(err.Error(), "10.0.0.1") || !strings.Contains(err.Error(), "--node-name") {
			t.Errorf("error %q names neither the holder nor the way out", err)
		}
		h.grant(t, node("n2", "10.0.0.2"), 10*time.Second)
		if _, err := h.RevokeLease(soon(t), &registryv1.RevokeLeaseRequest{LeaseId: lease}); err != nil {
			t.Fatal(err)
		}
		h.grant(t, node("n1", "10.0.0.2"), 10*time.Second) // the holder is gone
	})
}

// An agent that was killed and comes back takes its records over without their ever being away; what it does not
// write again goes with the old lease.
func TestNodeComesBack(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		n := node("n1", "10.0.0.1")
		old := h.grant(t, n, 2*time.Second)
		stays, goes := app("a0000001", "n1", "1.1.1.1"), app("a0000002", "n1", "1.1.1.1")
		h.write(t, old, stays, goes)
		_, head := h.watch(t, &registryv1.WatchRequest{}).list(t)
		lease := h.grant(t, n, 30*time.Second)
		h.write(t, lease, stays)

		keep, err := h.KeepLease(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the old lease can no longer be kept", func() bool { return h.srv.table.isSuperseded(store.LeaseID(old)) })
		if err := keep.Send(&registryv1.KeepLeaseRequest{LeaseId: old}); err != nil {
			t.Fatal(err)
		}
		_, err = keep.Recv()
		wantCode(t, err, codes.FailedPrecondition)
		_, err = h.Write(soon(t), &registryv1.WriteRequest{LeaseId: old, Changes: changesOf(goes)})
		wantCode(t, err, codes.FailedPrecondition)

		w := h.watch(t, &registryv1.WatchRequest{Revision: head.GetRevision(), TableId: head.GetTableId()})
		var seen []string
		for !slices.Contains(seen, "-apps/a0000002") {
			seen = append(seen, names(t, w.next(t).GetChanges())...)
		}
		if slices.Contains(seen, "-apps/a0000001") || slices.Contains(seen, "-nodes/n1") {
			t.Errorf("what came back was away: %q", seen)
		}
		if got := h.keys(t); !slices.Equal(got, []string{"nodes/n1", "apps/a0000001"}) {
			t.Errorf("table: %q", got)
		}
	})
}

// A write under the old lease that comes late, to a registry which has not heard of the new one yet, must not win.
func TestLateWriteUnderSupersededLease(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		n := node("n1", "10.0.0.1")
		old := h.grant(t, n, 30*time.Second)
		lease := h.grant(t, n, 30*time.Second)
		h.write(t, lease, app("a0000001", "n1", "1.1.1.1"))
		eventually(t, "the registry knows", func() bool { return h.srv.table.isSuperseded(store.LeaseID(old)) })
		h.srv.table.mu.Lock()
		delete(h.srv.table.superseded, store.LeaseID(old))
		h.srv.table.mu.Unlock()
		_, err := h.Write(soon(t), &registryv1.WriteRequest{LeaseId: old, Changes: changesOf(app("a0000001", "n1", "9.9.9.9"))})
		wantCode(t, err, codes.FailedPrecondition)
	})
}

func TestKeepLeaseAndExpiry(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		lease := h.grant(t, node("n1", "10.0.0.1"), 2*time.Second)
		h.write(t, lease, app("a0000001", "n1", "1.1.1.1"), endpoint("a0000001", "n1", "1.1.1.1:80", "10.0.0.1:40000"))
		keep, err := h.KeepLease(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			time.Sleep(time.Second)
			if err := keep.Send(&registryv1.KeepLeaseRequest{LeaseId: lease}); err != nil {
				t.Fatal(err)
			}
			if resp, err := keep.Recv(); err != nil || resp.GetTtl().AsDuration() < time.Second {
				t.Fatalf("keep: %v, error %v", resp, err)
			}
		}
		if got := h.keys(t); len(got) != 3 {
			t.Fatalf("table of a lease that is kept: %q", got)
		}
		w := h.watch(t, &registryv1.WatchRequest{})
		w.list(t)
		m := w.next(t) // the lease runs out: one batch for all
		got := names(t, m.GetChanges())
		slices.Sort(got)
		if !slices.Equal(got, []string{"-apps/a0000001", "-endpoints/a0000001/tcp/1.1.1.1:80/40000", "-nodes/n1"}) {
			t.Errorf("at expiry: %q", got)
		}
		if err := keep.Send(&registryv1.KeepLeaseRequest{LeaseId: lease}); err != nil {
			t.Fatal(err)
		}
		_, err = keep.Recv()
		wantCode(t, err, codes.FailedPrecondition)
	})
}

func TestKeepLeaseEndsWithItsCaller(t *testing.T) {
	h := serve(t, memory(t))
	keep, err := h.KeepLease(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := keep.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := keep.Recv(); err != io.EOF { //nolint:errorlint // gRPC returns it as it is
		t.Errorf("after the last request: %v", err)
	}
	keep, err = h.KeepLease(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := keep.Send(&registryv1.KeepLeaseRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err = keep.Recv()
	wantCode(t, err, codes.InvalidArgument)
	_, err = h.RevokeLease(soon(t), &registryv1.RevokeLeaseRequest{})
	wantCode(t, err, codes.InvalidArgument)
	if _, err := h.RevokeLease(soon(t), &registryv1.RevokeLeaseRequest{LeaseId: 4711}); err != nil {
		t.Errorf("revoking a lease that has ended: %v", err)
	}
}

func TestUnavailableWithoutStore(t *testing.T) {
	st := memory(t)
	st.SetDown(true)
	h := serve(t, st)
	_, err := h.Write(soon(t), &registryv1.WriteRequest{Changes: changesOf(app("a0000001", "n1", "1.1.1.1"))})
	wantCode(t, err, codes.Unavailable)
	_, err = h.List(soon(t), &registryv1.ListRequest{})
	wantCode(t, err, codes.Unavailable)
	_, err = h.GrantLease(soon(t), &registryv1.GrantLeaseRequest{Node: axpb.Node(node("n1", "10.0.0.1"))})
	wantCode(t, err, codes.Unavailable)
	_, err = h.watch(t, &registryv1.WatchRequest{}).stream.Recv()
	wantCode(t, err, codes.Unavailable)
	st.SetDown(false)
	h.write(t, 0, app("a0000001", "n1", "1.1.1.1"))
	h.watch(t, &registryv1.WatchRequest{}).list(t)
}

func TestVirtualServices(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		create := func(v ax.VirtualService) (*typev1.VirtualService, error) {
			resp, err := h.CreateVirtualService(soon(t), &registryv1.CreateVirtualServiceRequest{VirtualService: axpb.VirtualService(v)})
			return resp.GetVirtualService(), err
		}
		made, err := create(ax.VirtualService{Name: "MyVsvc", Balancer: ax.RoundRobin, Backends: []ax.Backend{{Addr: netip.MustParseAddr("1.1.1.1"), Weight: 1}}})
		if err != nil || made.GetName() != "myvsvc" || !netip.MustParsePrefix("198.18.0.0/15").Contains(netip.MustParseAddr(made.GetIp())) {
			t.Fatalf("created %v, error %v", made, err)
		}
		_, err = create(ax.VirtualService{Name: "myvsvc", Balancer: ax.Random})
		wantCode(t, err, codes.AlreadyExists)
		for _, name := range []string{"", "a b", "-a", "a..b", strings.Repeat("a", 64)} {
			_, err = create(ax.VirtualService{Name: name, Balancer: ax.Random})
			wantCode(t, err, codes.InvalidArgument)
		}
		_, err = create(ax.VirtualService{Name: "loop", Addr: netip.MustParseAddr("127.0.0.1")})
		wantCode(t, err, codes.InvalidArgument)
		fixed, err := create(ax.VirtualService{Name: "fixed", Addr: netip.MustParseAddr("1.1.1.1"), Balancer: ax.Random})
		if err != nil || fixed.GetIp() != "1.1.1.1" {
			t.Fatalf("created %v, error %v", fixed, err)
		}

		got, err := h.GetVirtualService(soon(t), &registryv1.GetVirtualServiceRequest{Name: "MYVSVC"})
		if err != nil || got.GetVirtualService().GetIp() != made.GetIp() || len(got.GetVirtualService().GetBackends()) != 1 {
			t.Errorf("got %v, error %v", got, err)
		}
		all, err := h.ListVirtualServices(soon(t), &registryv1.ListVirtualServicesRequest{})
		if err != nil || len(all.GetVirtualServices()) != 2 || all.GetVirtualServices()[0].GetName() != "fixed" {
			t.Errorf("list %v, error %v", all, err)
		}

		h.write(t, 0, app("a0000001", "n1", "1.1.1.1")) // holds the address of "fixed"
		eventually(t, "the app is in the copy", func() bool { return h.srv.table.has(recordID{registryv1.Kind_KIND_APP, "a0000001"}) })
		for _, name := range []string{"MyVsvc", "fixed"} {
			if _, err := h.DeleteVirtualService(soon(t), &registryv1.DeleteVirtualServiceRequest{Name: name}); err != nil {
				t.Errorf("delete %s: %v", name, err)
			}
		}
		if got := h.keys(t); !slices.Equal(got, []string{"apps/a0000001", "claims/1.1.1.1"}) {
			t.Errorf("table after deleting: %q, want the claim that the app holds", got)
		}
		_, err = h.DeleteVirtualService(soon(t), &registryv1.DeleteVirtualServiceRequest{Name: "fixed"})
		wantCode(t, err, codes.NotFound)
		_, err = h.GetVirtualService(soon(t), &registryv1.GetVirtualServiceRequest{Name: "fixed"})
		wantCode(t, err, codes.NotFound)
		_, err = h.GetVirtualService(soon(t), &registryv1.GetVirtualServiceRequest{})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("get without a name: %v", err)
		}
	})
}
