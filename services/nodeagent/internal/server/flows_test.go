package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"appswitch.io/services/nodeagent/internal/flows"
	"appswitch.io/services/nodeagent/internal/grpctest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestPastFlows asks for what the agent has kept.
func TestPastFlows(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, _ *grpctest.Server) {
		log.Identify(func(id ax.AppID) (string, ax.Labels) { return "app-" + string(id), ax.Labels{"role": string(id)} })
		for i, f := range []flows.Flow{
			{App: "a", Dest: netip.MustParseAddrPort("1.1.1.1:80"), Verdict: ax.Allow},
			{App: "b", Dest: netip.MustParseAddrPort("1.1.1.1:81"), Verdict: ax.Deny},
			{App: "a", Dest: netip.MustParseAddrPort("2.2.2.2:80"), Verdict: ax.Passthrough},
			{App: "a", Dest: netip.MustParseAddrPort("[fd00::1]:80"), Verdict: ax.Allow, Retries: 1},
		} {
			f.Time = time.Now().Add(time.Duration(i-4) * time.Minute) // the last a minute ago
			log.Add(f)
		}
		allow, deny := routerv1.Verdict_VERDICT_ALLOW, routerv1.Verdict_VERDICT_DENY
		for _, tc := range []struct {
			req  *nodeagentv1.WatchFlowsRequest
			want string // their ports, in order, with those of the addresses
		}{
			{&nodeagentv1.WatchFlowsRequest{}, "1.1.1.1:80 1.1.1.1:81 2.2.2.2:80 fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{Last: 2}, "2.2.2.2:80 fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{Last: 1 << 30, AppId: "b"}, "1.1.1.1:81"},
			{&nodeagentv1.WatchFlowsRequest{Since: durationpb.New(150 * time.Second)}, "2.2.2.2:80 fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{App: "b"}, "1.1.1.1:81"},
			{&nodeagentv1.WatchFlowsRequest{App: "app-b"}, "1.1.1.1:81"},
			{&nodeagentv1.WatchFlowsRequest{App: "app"}, ""},
			{&nodeagentv1.WatchFlowsRequest{To: []string{"1.1.1.1"}}, "1.1.1.1:80 1.1.1.1:81"},
			{&nodeagentv1.WatchFlowsRequest{To: []string{":80"}}, "1.1.1.1:80 2.2.2.2:80 fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{To: []string{"[fd00::1]:80", "::ffff:2.2.2.2"}}, "2.2.2.2:80 fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{Verdicts: []routerv1.Verdict{deny}}, "1.1.1.1:81"},
			{&nodeagentv1.WatchFlowsRequest{Verdicts: []routerv1.Verdict{allow, deny}, Last: 2}, "1.1.1.1:81 fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{Retried: true}, "fd00::1:80"},
			{&nodeagentv1.WatchFlowsRequest{Selector: "role!=a"}, "1.1.1.1:81"},
		} {
			tc.req.PastOnly = true
			stream, err := c.WatchFlows(t.Context(), tc.req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				resp, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v: %v", tc.req, err)
				}
				f := resp.GetFlow()
				if f.GetAppName() != "app-"+f.GetAppId() || f.GetLabels()["role"] != f.GetAppId() {
					t.Errorf("whose flow: %v", f)
				}
				got = append(got, fmt.Sprint(f.GetDestination().GetIp(), ":", f.GetDestination().GetPort()))
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("%v: %q, want %q", tc.req, got, tc.want)
			}
		}
	})
}

// TestPolicyFlows: the policy that decided, and the one that would have refused, are told and selected by.
func TestPolicyFlows(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, _ *grpctest.Server) {
		dest := netip.MustParseAddrPort("1.1.1.1:80")
		log.Add(flows.Flow{App: "a", Dest: dest, Verdict: ax.Deny, Reason: ax.ReasonPolicyDeny, Policy: "no-db"})
		log.Add(flows.Flow{App: "b", Dest: dest, Verdict: ax.Allow, Reason: ax.ReasonLabels, Audit: "tells"})
		log.Add(flows.Flow{App: "c", Dest: dest, Verdict: ax.Allow, Reason: ax.ReasonPolicyAllow, Policy: "admits"})
		deny := []routerv1.Verdict{routerv1.Verdict_VERDICT_DENY}
		for want, req := range map[string]*nodeagentv1.WatchFlowsRequest{
			"a policy-deny: no-db no-db  ":                          {Verdicts: deny},
			"b shared-label  tells ":                                {Audited: true},
			"a policy-deny: no-db no-db  b shared-label  tells ":    {Audited: true, Verdicts: deny},
			"b shared-label  tells c policy-allow: admits admits  ": {Verdicts: []routerv1.Verdict{routerv1.Verdict_VERDICT_ALLOW}},
			"c policy-allow: admits admits  ":                       {Last: 1},
		} {
			req.PastOnly = true
			stream, err := c.WatchFlows(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for {
				resp, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				f := resp.GetFlow()
				got += fmt.Sprintf("%s %s %s %s ", f.GetAppId(), f.GetReason(), f.GetPolicy(), f.GetAuditPolicy())
			}
			if got != want {
				t.Errorf("%v: %q, want %q", req, got, want)
			}
		}
	})
}

// TestPastThenNew has no gap between what was and what comes.
func TestPastThenNew(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, log *flows.Log, _ *grpctest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for port := range uint16(3) {
			log.Add(flows.Flow{App: "a", Dest: netip.AddrPortFrom(netip.MustParseAddr("1.1.1.1"), port), Verdict: ax.Allow})
		}
		stream, err := c.WatchFlows(ctx, &nodeagentv1.WatchFlowsRequest{Last: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
		log.Add(flows.Flow{App: "a", Dest: netip.MustParseAddrPort("1.1.1.1:3"), Verdict: ax.Allow})
		for _, want := range []uint32{2, 3} {
			if resp, err := stream.Recv(); err != nil || resp.GetFlow().GetDestination().GetPort() != want {
				t.Errorf("got %v, %v, want port %d", resp, err, want)
			}
		}
	})
}

func TestBadFilters(t *testing.T) {
	serve(t, &agent{}, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		for want, req := range map[string]*nodeagentv1.WatchFlowsRequest{
			`to: "web": want an address`: {To: []string{"web"}},
			`to: ":0": want`:             {To: []string{":0"}},
			`to: "1.1.1.1:x": want`:      {To: []string{"1.1.1.1:x"}},
			"at most 64":                 {To: make([]string, 65)},
			`selector "=": want`:         {Selector: "="},
			"since: -1s":                 {Since: durationpb.New(-time.Second)},
			"verdicts: want":             {Verdicts: []routerv1.Verdict{routerv1.Verdict_VERDICT_UNSPECIFIED}},
		} {
			stream, err := c.WatchFlows(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want %s", req, err, want)
			}
		}
	})
}
