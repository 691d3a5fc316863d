package router_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func explainRig(t *testing.T) *rig {
	r := newRig(t, newRegistry(), nil)
	addr := netip.MustParseAddr
	app := func(id, name, ip string, labels ax.Labels) ax.App {
		return ax.App{ID: ax.AppID(id), Name: name, Node: "n1", Addr: addr(ip), Labels: labels}
	}
	prod, test := ax.Labels{"role": "prod"}, ax.Labels{"role": "test"}
	at := r.registry.write(
		put(ax.Node{Name: "n1", Addr: addr("10.0.2.1"), ReservedPorts: []uint16{6665}}),
		put(app("0000000a", "web", "1.1.1.1", prod)), put(app("0000000b", "cron", "1.1.1.2", test)), put(app("0000000c", "both", "1.1.1.3", test)), put(app("0000000d", "both", "1.1.1.4", prod)),
		put(endpoint(1, "1.1.1.1:80", prod)), put(endpoint(2, "1.1.1.1:80", test)), put(endpoint(3, "1.1.1.4:80", zone)), put(endpoint(4, "1.1.1.5:80", zone)),
		put(ax.Claim{Addr: addr("198.18.0.1"), Name: "gone"}),
		put(ax.Policy{Name: "no-five", Action: ax.PolicyDeny, Ports: []ax.PortRange{{First: 5, Last: 5}}}),
		put(endpoint(5, "1.1.1.1:5", prod)), put(endpoint(6, "1.1.1.6:80", zone)), put(endpoint(7, "1.1.1.6:80", zone)),
	)
	n := r.node(t)
	n.reach(at)
	n.cancel()
	return r
}

func TestExplain(t *testing.T) {
	r := explainRig(t)
	request := func(app, destination string, labels ...string) *routerv1.ExplainRequest {
		return &routerv1.ExplainRequest{App: app, Destination: destination, Labels: labels}
	}
	for _, c := range []struct {
		req  *routerv1.ExplainRequest
		want string // verdict, reason, errno, destination, candidates
	}{
		{request("web", "1.1.1.1:80"), "ALLOW shared-label  1.1.1.1:80 [00000001 true shared-label] [00000002 false no-shared-label]"},
		{request("0000000b", "1.1.1.1:80"), "ALLOW shared-label  1.1.1.1:80 [00000001 false no-shared-label] [00000002 true shared-label]"},
		{request("", "web:80", "role=prod"), "ALLOW shared-label  1.1.1.1:80 [00000001 true shared-label] [00000002 false no-shared-label]"},
		{request("", "WEB.appswitch.local.:80", "role=x", "zone=y"), "DENY no-shared-label ECONNREFUSED 1.1.1.1:80 [00000001 false no-shared-label] [00000002 false no-shared-label]"},
		{&routerv1.ExplainRequest{Destination: "1.1.1.5:80", Ejected: []string{"10.0.2.1:40004"}, EjectedShare: 100}, "ALLOW shared-label  1.1.1.5:80 [00000004 true shared-label]"},
		{&routerv1.ExplainRequest{Destination: "1.1.1.6:80", Ejected: []string{"10.0.2.1:40006"}, EjectedShare: 100}, "ALLOW shared-label  1.1.1.6:80 [00000006 false ejected] [00000007 true shared-label]"},
		{request("", "1.1.1.5:80"), "ALLOW shared-label  1.1.1.5:80 [00000004 true shared-label]"},
		{request("", "both:80"), "ALLOW shared-label  1.1.1.4:80 [00000003 true shared-label]"},
		{request("", "both:81"), "PASSTHROUGH external  1.1.1.3:81"},
		{request("", "web:81"), "DENY no-endpoint ECONNREFUSED 1.1.1.1:81"},
		{request("web", "web:5"), "DENY policy-deny: no-five ECONNREFUSED 1.1.1.1:5 [00000005 false policy-deny: no-five]"},
		{request("web", "gone:80"), "DENY no-endpoint ECONNREFUSED 198.18.0.1:80"},
		{request("web", "10.0.2.1:6665"), "DENY reserved-port ECONNREFUSED 10.0.2.1:6665"},
		{request("web", "10.0.2.1:40001"), "ALLOW shared-label  10.0.2.1:40001 [00000001 true shared-label]"},
		{request("web", "[::ffff:1.1.1.1]:81"), "DENY no-endpoint ECONNREFUSED 1.1.1.1:81"},
		{request("web", "8.8.8.8:53"), "PASSTHROUGH external  8.8.8.8:53"},
		{&routerv1.ExplainRequest{App: "web", Destination: "web:80", Protocol: "udp"}, "DENY no-endpoint ECONNREFUSED 1.1.1.1:80"},
	} {
		resp, err := r.client.Explain(context.Background(), c.req)
		if err != nil {
			t.Errorf("%v: %v", c.req, err)
			continue
		}
		d := resp.GetDestination()
		got := fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(resp.GetVerdict().String(), "VERDICT_"), resp.GetReason(), resp.GetErrno(), fmt.Sprint(d.GetIp(), ":", d.GetPort()))
		for _, cand := range resp.GetCandidates() {
			got += fmt.Sprintf(" [%s %v %s]", cand.GetEndpoint().GetAppId(), cand.GetEligible(), cand.GetReason())
		}
		if got != c.want || resp.GetRevision() == 0 || resp.GetAge() == nil || resp.GetAge().AsDuration() < 0 {
			t.Errorf("%v:\n got %s\nwant %s", c.req, got, c.want)
		}
	}
	for _, c := range []struct {
		req  *routerv1.ExplainRequest
		code codes.Code
		want string
	}{
		{request("nobody", "web:80"), codes.NotFound, "nobody"},
		{request("both", "web:80"), codes.NotFound, "give an id"},
		{request("web", "web:80", "a=b"), codes.InvalidArgument, "give one of them"},
		{request("", "web:80", "ab"), codes.InvalidArgument, "key=value"},
		{request("", "www.example.org:80"), codes.NotFound, "give an address"},
		{request("", "web"), codes.InvalidArgument, "name:port"},
		{request("", ":80"), codes.InvalidArgument, "name:port"},
		{request("", ""), codes.InvalidArgument, "name:port"},
		{&routerv1.ExplainRequest{Destination: "web:80", Ejected: []string{"web"}}, codes.InvalidArgument, "ejected"},
		{request("", "web:0"), codes.InvalidArgument, "1 to 65535"},
		{request("", "web:70000"), codes.InvalidArgument, "1 to 65535"},
		{&routerv1.ExplainRequest{Destination: "web:80", Protocol: "sctp"}, codes.InvalidArgument, "tcp or udp"},
	} {
		_, err := r.client.Explain(context.Background(), c.req)
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %s with %q", c.req, err, c.code, c.want)
		}
	}
}

func TestRoute(t *testing.T) {
	r := explainRig(t)
	to := func(ip string, port uint32) *typev1.SocketAddress { return &typev1.SocketAddress{Ip: ip, Port: port} }
	for _, c := range []struct {
		req     *routerv1.RouteRequest
		verdict routerv1.Verdict
		reason  string
		app     string
	}{
		{&routerv1.RouteRequest{Labels: ax.Labels{"role": "test"}, Destination: to("1.1.1.1", 80)}, routerv1.Verdict_VERDICT_ALLOW, "shared-label", "00000002"},
		{&routerv1.RouteRequest{Destination: to("1.1.1.5", 80), Protocol: typev1.Protocol_PROTOCOL_TCP}, routerv1.Verdict_VERDICT_ALLOW, "shared-label", "00000004"},
		{&routerv1.RouteRequest{Destination: to("1.1.1.1", 80)}, routerv1.Verdict_VERDICT_DENY, "no-shared-label", ""},
		{&routerv1.RouteRequest{Destination: to("1.1.1.1", 5)}, routerv1.Verdict_VERDICT_DENY, "policy-deny: no-five", ""},
		{&routerv1.RouteRequest{Destination: to("8.8.8.8", 53), Protocol: typev1.Protocol_PROTOCOL_UDP}, routerv1.Verdict_VERDICT_PASSTHROUGH, "external", ""},
	} {
		resp, err := r.client.Route(context.Background(), c.req)
		if err != nil || resp.GetVerdict() != c.verdict || resp.GetReason() != c.reason || resp.GetEndpoint().GetAppId() != c.app || resp.GetRevision() == 0 {
			t.Errorf("%v: %v, %v", c.req, resp, err)
		}
	}
	for want, req := range map[string]*routerv1.RouteRequest{
		"destination: missing": {},
		"destination.ip":       {Destination: to("web", 80)},
		"destination.port":     {Destination: to("1.1.1.1", 70000)},
		"protocol":             {Destination: to("1.1.1.1", 80), Protocol: 9},
		"labels":               {Destination: to("1.1.1.1", 80), Labels: ax.Labels{"a": ""}},
	} {
		if _, err := r.client.Route(context.Background(), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want INVALID_ARGUMENT with %q", req, err, want)
		}
	}
}

// TestReplayPolicies: a draft decides flows as it would if it were applied, and what is there stays.
func TestReplayPolicies(t *testing.T) {
	r := explainRig(t)
	flow := func(role, ip string, port uint32) *routerv1.RouteRequest {
		return &routerv1.RouteRequest{Labels: ax.Labels{"role": role}, Destination: &typev1.SocketAddress{Ip: ip, Port: port}}
	}
	deny := typev1.PolicyAction_POLICY_ACTION_DENY
	req := &routerv1.ReplayPoliciesRequest{
		Policies: []*typev1.Policy{
			{Name: "no-prod", Action: deny, To: map[string]string{"role": "prod"}, Ports: []uint32{80}},
			{Name: "tell", Action: deny, ToCidrs: []string{"8.8.0.0/16"}, Audit: true},
		},
		RemovedPolicies: []string{"no-five"},
		Flows:           []*routerv1.RouteRequest{flow("prod", "1.1.1.1", 80), flow("test", "1.1.1.1", 80), flow("prod", "1.1.1.1", 5), flow("prod", "8.8.8.8", 53), flow("prod", "9.9.9.9", 53)},
	}
	want := []string{
		"true ALLOW shared-label  / DENY policy-deny: no-prod ",
		"false ALLOW shared-label  / ALLOW shared-label ",
		"true DENY policy-deny: no-five  / ALLOW shared-label ",
		"true PASSTHROUGH external  / PASSTHROUGH external tell",
		"false PASSTHROUGH external  / PASSTHROUGH external ",
	}
	for range 2 { // the draft leaves nothing behind
		resp, err := r.client.ReplayPolicies(t.Context(), req)
		if err != nil || len(resp.GetFlows()) != len(want) || resp.GetRevision() == 0 {
			t.Fatalf("%v, %v", resp, err)
		}
		text := func(d *routerv1.RouteResponse) string {
			return fmt.Sprintf("%s %s %s", strings.TrimPrefix(d.GetVerdict().String(), "VERDICT_"), d.GetReason(), d.GetAuditPolicy())
		}
		for i, f := range resp.GetFlows() {
			if got := fmt.Sprintf("%v %s / %s", f.GetChanged(), text(f.GetPresent()), text(f.GetDraft())); got != want[i] {
				t.Errorf("flow %d: %q, want %q", i, got, want[i])
			}
		}
	}
	for says, bad := range map[string]*routerv1.ReplayPoliciesRequest{
		"policy.action":         {Policies: []*typev1.Policy{{Name: "p"}}},
		"flows[0]: destination": {Flows: []*routerv1.RouteRequest{{}}},
		"1025 flows":            {Flows: make([]*routerv1.RouteRequest, 1025)},
		"1001 policies":         {RemovedPolicies: make([]string, 1001)},
	} {
		if _, err := r.client.ReplayPolicies(t.Context(), bad); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want INVALID_ARGUMENT with %q", err, says)
		}
	}
}
