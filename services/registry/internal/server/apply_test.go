package server

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/registry/internal/store"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	created    = registryv1.ApplyOutcome_APPLY_OUTCOME_CREATED
	configured = registryv1.ApplyOutcome_APPLY_OUTCOME_CONFIGURED
	unchanged  = registryv1.ApplyOutcome_APPLY_OUTCOME_UNCHANGED
)

// apply applies a virtual service and checks what becomes of it.
func (h *harness) apply(t *testing.T, p *typev1.VirtualService, dryRun bool, want registryv1.ApplyOutcome) *registryv1.ApplyVirtualServiceResponse {
	t.Helper()
	resp, err := h.ApplyVirtualService(soon(t), &registryv1.ApplyVirtualServiceRequest{VirtualService: p, DryRun: dryRun})
	if err != nil || resp.GetOutcome() != want {
		t.Fatalf("apply %v: %s, error %v; want %s", p, resp.GetOutcome(), err, want)
	}
	if (resp.GetRevision() == 0) != dryRun || (resp.GetPrevious() == nil) != (want == created) {
		t.Errorf("apply %v: %v", p, resp)
	}
	return resp
}

func TestApplyVirtualService(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		web := &typev1.VirtualService{Name: "Web", Backends: []string{"1.1.1.1"}}
		if dry := h.apply(t, web, true, created); dry.GetVirtualService().GetIp() != "" || len(h.keys(t)) != 0 {
			t.Errorf("a dry run made %v, table %q", dry, h.keys(t))
		}
		first := h.apply(t, web, false, created)
		ip := first.GetVirtualService().GetIp()
		if ip == "" || first.GetVirtualService().GetName() != "web" {
			t.Errorf("created %v", first)
		}
		if again := h.apply(t, web, false, unchanged); again.GetRevision() != first.GetRevision() {
			t.Errorf("nothing changed, but the revision did: %v, was %v", again, first)
		}
		h.apply(t, &typev1.VirtualService{Name: "web", Ip: ip, Balancer: typev1.BalancerType_BALANCER_TYPE_RANDOM, Backends: []string{"1.1.1.1"}}, true, unchanged)

		more := &typev1.VirtualService{
			Name: "web", Balancer: typev1.BalancerType_BALANCER_TYPE_MAGLEV, Backends: []string{"1.1.1.1", "192.0.2.7:443"},
			Weights: map[string]uint32{"192.0.2.7:443": 3}, SessionAffinity: durationpb.New(time.Minute), SourceIp: "10.0.0.9",
		}
		h.apply(t, more, true, configured)
		changed := h.apply(t, more, false, configured)
		if changed.GetVirtualService().GetIp() != ip || !proto.Equal(changed.GetPrevious(), first.GetVirtualService()) {
			t.Errorf("changed to %v", changed)
		}
		got, err := h.GetVirtualService(soon(t), &registryv1.GetVirtualServiceRequest{Name: "web"})
		if err != nil || !proto.Equal(got.GetVirtualService(), changed.GetVirtualService()) {
			t.Errorf("got %v, error %v; want %v", got, err, changed)
		}

		more.Ip = "1.1.1.9"
		h.apply(t, more, false, configured)
		if got := h.keys(t); !slices.Equal(got, []string{"vservices/web", "claims/1.1.1.9"}) {
			t.Errorf("after moving: %q, want the old address free", got)
		}
		claim, err := h.ClaimAddress(soon(t), &registryv1.ClaimAddressRequest{Name: "web"})
		if err != nil || claim.GetClaim().GetIp() != "1.1.1.9" {
			t.Errorf("the name has %v, error %v, want the new address", claim, err)
		}
		if _, err := h.DeleteVirtualService(soon(t), &registryv1.DeleteVirtualServiceRequest{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		if got := h.keys(t); len(got) != 0 {
			t.Errorf("after deleting: %q", got)
		}
	})
}

// TestApplyAtOnce: many who apply the same at a time make it once, and all succeed.
func TestApplyAtOnce(t *testing.T) {
	h := serve(t, memory(t))
	var mu sync.Mutex // guards outcomes
	outcomes := map[registryv1.ApplyOutcome]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			resp, err := h.ApplyVirtualService(soon(t), &registryv1.ApplyVirtualServiceRequest{VirtualService: &typev1.VirtualService{Name: "web"}})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[resp.GetOutcome()]++
		})
	}
	wg.Wait()
	if outcomes[created] != 1 || outcomes[unchanged] != 7 {
		t.Errorf("outcomes %v", outcomes)
	}
}

func TestApplyRefuses(t *testing.T) {
	h := serve(t, memory(t))
	h.grant(t, node("n1", "10.0.0.1"), 10*time.Second)
	eventually(t, "the node is in the copy", func() bool { return h.srv.table.has(recordID{registryv1.Kind_KIND_NODE, "n1"}) })
	for says, spoil := range map[string]func(*typev1.VirtualService){
		"virtual_service.name: missing":                func(v *typev1.VirtualService) { v.Name = "" },
		`virtual_service.name: "a b"`:                  func(v *typev1.VirtualService) { v.Name = "a b" },
		"virtual_service.balancer: 9 is not one":       func(v *typev1.VirtualService) { v.Balancer = 9 },
		"virtual_service.ip: 127.0.0.1 is loopback":    func(v *typev1.VirtualService) { v.Ip = "127.0.0.1" },
		`10.0.0.1 is the address of node "n1" itself`:  func(v *typev1.VirtualService) { v.Ip = "10.0.0.1" },
		`virtual_service.backends: "web"`:              func(v *typev1.VirtualService) { v.Backends = []string{"web"} },
		"virtual_service.backends: ::1 is loopback":    func(v *typev1.VirtualService) { v.Backends = []string{"[::1]:80"} },
		"virtual_service.backends: 169.254.169.254 is": func(v *typev1.VirtualService) { v.Backends = []string{"169.254.169.254:80"} },
		"virtual_service.backends: 1.1.1.1:* needs":    func(v *typev1.VirtualService) { v.Backends = []string{"1.1.1.1:*"} },
		`virtual_service.weights: "1.1.1.2" is not one`: func(v *typev1.VirtualService) {
			v.Backends, v.Weights = []string{"1.1.1.1"}, map[string]uint32{"1.1.1.2": 1}
		},
		"virtual_service.weights: 1001 for 1.1.1.1": func(v *typev1.VirtualService) {
			v.Backends, v.Weights = []string{"1.1.1.1"}, map[string]uint32{"1.1.1.1": 1 << 20}
		},
		"virtual_service.weights: 0 for 1.1.1.1": func(v *typev1.VirtualService) {
			v.Backends, v.Weights = []string{"1.1.1.1"}, map[string]uint32{"1.1.1.1": 0}
		},
		"virtual_service.ports: port 0":              func(v *typev1.VirtualService) { v.Ports = []*typev1.PortMapping{{VirtualPort: 1}} },
		"virtual_service.ports.virtual_port: 65536":  func(v *typev1.VirtualService) { v.Ports = []*typev1.PortMapping{{VirtualPort: 65536}} },
		"virtual_service.session_affinity: 1ns":      func(v *typev1.VirtualService) { v.SessionAffinity = durationpb.New(1) },
		"virtual_service.session_affinity: -1s":      func(v *typev1.VirtualService) { v.SessionAffinity = durationpb.New(-time.Second) },
		`virtual_service.source_ip: "eth0"`:          func(v *typev1.VirtualService) { v.SourceIp = "eth0" },
		"virtual_service.source_ip: 0.0.0.0 is not ": func(v *typev1.VirtualService) { v.SourceIp = "0.0.0.0" },
	} {
		v := &typev1.VirtualService{Name: "v"}
		spoil(v)
		for _, dryRun := range []bool{true, false} {
			_, err := h.ApplyVirtualService(soon(t), &registryv1.ApplyVirtualServiceRequest{VirtualService: v, DryRun: dryRun})
			wantCode(t, err, codes.InvalidArgument)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("error %q does not say %q", err, says)
			}
		}
		_, err := h.CreateVirtualService(soon(t), &registryv1.CreateVirtualServiceRequest{VirtualService: v})
		wantCode(t, err, codes.InvalidArgument)
	}
	outside := ax.ExternalEndpoint(ax.TCP, netip.MustParseAddrPort("8.8.8.8:80"))
	_, err := h.Write(soon(t), &registryv1.WriteRequest{Changes: changesOf(*outside)})
	wantCode(t, err, codes.InvalidArgument)
	if got := h.keys(t, registryv1.Kind_KIND_VIRTUAL_SERVICE, registryv1.Kind_KIND_ADDRESS_CLAIM, registryv1.Kind_KIND_ENDPOINT); len(got) != 0 {
		t.Errorf("refused requests left %q", got)
	}
}

func TestPolicies(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		h := serve(t, st)
		apply := func(p *typev1.Policy, dryRun bool, want registryv1.ApplyOutcome) {
			t.Helper()
			resp, err := h.ApplyPolicy(soon(t), &registryv1.ApplyPolicyRequest{Policy: p, DryRun: dryRun})
			if err != nil || resp.GetOutcome() != want || (resp.GetRevision() == 0) != dryRun || (resp.GetPrevious() == nil) != (want == created) {
				t.Fatalf("apply %v: %v, error %v; want %s", p, resp, err, want)
			}
		}
		p := axpb.Policy(ax.Policy{Name: "p", Action: ax.PolicyDeny, From: ax.Labels{"role": "test"}.Selector(), Ports: []ax.PortRange{{First: 5432, Last: 5432}}})
		apply(p, true, created)
		apply(p, false, created)
		apply(p, false, unchanged)
		p.Ports = []uint32{5432, 6379}
		apply(p, true, configured)
		apply(p, false, configured)
		apply(p, true, unchanged)
		apply(axpb.Policy(ax.Policy{Name: "a", Action: ax.PolicyAllow}), false, created)
		list, err := h.ListPolicies(soon(t), &registryv1.ListPoliciesRequest{})
		if err != nil || len(list.GetPolicies()) != 2 || list.GetPolicies()[0].GetName() != "a" || !proto.Equal(list.GetPolicies()[1], p) {
			t.Errorf("list %v, error %v", list, err)
		}
		one, err := h.GetPolicy(soon(t), &registryv1.GetPolicyRequest{Name: "p"})
		if err != nil || !proto.Equal(one.GetPolicy(), p) {
			t.Errorf("one: %v, error %v", one, err)
		}
		_, err = h.CreatePolicy(soon(t), &registryv1.CreatePolicyRequest{Policy: p})
		wantCode(t, err, codes.AlreadyExists)
		if _, err := h.DeletePolicy(soon(t), &registryv1.DeletePolicyRequest{Name: "p"}); err != nil {
			t.Error(err)
		}
		_, err = h.GetPolicy(soon(t), &registryv1.GetPolicyRequest{Name: "p"})
		wantCode(t, err, codes.NotFound)
		// Equal conditions are stored alike, in whichever field they came.
		p.From, p.FromSelector, p.ToCidrs, p.Audit = nil, "tier!=x, role == test", []string{"192.0.2.7"}, true
		stored, err := h.CreatePolicy(soon(t), &registryv1.CreatePolicyRequest{Policy: p})
		if got := stored.GetPolicy(); err != nil || got.GetFrom()["role"] != "test" || got.GetFromSelector() != "tier!=x" || got.GetToCidrs()[0] != "192.0.2.7/32" || !got.GetAudit() {
			t.Errorf("created %v, error %v", stored, err)
		}
		apply(stored.GetPolicy(), false, unchanged)
		apply(p, false, unchanged)
		if _, err := h.DeletePolicy(soon(t), &registryv1.DeletePolicyRequest{Name: "p"}); err != nil {
			t.Error(err)
		}
		_, err = h.DeletePolicy(soon(t), &registryv1.DeletePolicyRequest{Name: "p"})
		wantCode(t, err, codes.NotFound)
		_, err = h.DeletePolicy(soon(t), &registryv1.DeletePolicyRequest{})
		wantCode(t, err, codes.InvalidArgument)
		for says, bad := range map[string]*typev1.Policy{
			"policy.name: missing":          {},
			`policy.name: "a b"`:            {Name: "a b", Action: 1},
			"policy.action":                 {Name: "p"},
			"policy.from":                   {Name: "p", Action: 1, From: map[string]string{"a": ""}},
			"policy.to":                     {Name: "p", Action: 1, To: map[string]string{"a,b": "c"}},
			"policy.ports: 0 is not a port": {Name: "p", Action: 1, Ports: []uint32{0}},
			"policy.ports: 70000 is not":    {Name: "p", Action: 1, Ports: []uint32{70000}},
			"policy.ports: 9-8 is not":      {Name: "p", Action: 1, PortRanges: []*typev1.PortRange{{First: 9, Last: 8}}},
			"policy.from_selector":          {Name: "p", Action: 1, FromSelector: "a b"},
			`can't be "b" and "c"`:          {Name: "p", Action: 1, To: map[string]string{"a": "b"}, ToSelector: "a=c"},
			"policy.to_cidrs":               {Name: "p", Action: 1, ToCidrs: []string{"10.0.0.1/8"}},
			"policy.except_cidrs":           {Name: "p", Action: 1, ToCidrs: []string{"10.0.0.0/8"}, ExceptCidrs: []string{"11.0.0.0/16"}},
			"policy.audit":                  {Name: "p", Action: 1, Audit: true},
		} {
			_, err := h.ApplyPolicy(soon(t), &registryv1.ApplyPolicyRequest{Policy: bad})
			wantCode(t, err, codes.InvalidArgument)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("error %q does not say %q", err, says)
			}
		}
	})
}
