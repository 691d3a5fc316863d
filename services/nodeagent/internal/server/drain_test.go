package server

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"appswitch.io/services/nodeagent/internal/flows"
	"appswitch.io/services/nodeagent/internal/grpctest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestListEjections(t *testing.T) {
	a := &agent{}
	serve(t, a, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		a.ejections = []route.Ejection{
			{Proto: ax.TCP, Host: netip.MustParseAddrPort("10.0.0.1:40000"), Failures: 3, Ejections: 1, Until: time.Now().Add(time.Minute)},
			{Proto: ax.TCP, Host: netip.MustParseAddrPort("10.0.0.1:40001"), Failures: 4, Ejections: 1, Until: time.Now().Add(-time.Minute)},
			{Proto: ax.TCP, Host: netip.MustParseAddrPort("10.0.0.1:40002"), Failures: 1},
		}
		a.status.Node.Name = "n1"
		got, err := c.ListEjections(t.Context(), &nodeagentv1.ListEjectionsRequest{})
		if err != nil || len(got.GetEjections()) != 3 || got.GetNode() != "n1" || got.GetMaxShare() != 50 {
			t.Fatalf("%v, %v", got, err)
		}
		e := got.GetEjections()
		if e[0].GetUntil() == nil || e[0].GetFailures() != 3 || e[0].GetHostAddress().GetPort() != 40000 {
			t.Errorf("ejected: %v", e[0])
		}
		if e[1].GetUntil() != nil || e[2].GetUntil() != nil {
			t.Errorf("not ejected: %v, %v", e[1], e[2])
		}
	})
}

func TestDrain(t *testing.T) {
	a := &agent{drained: map[ax.AppID]bool{"a": false}}
	serve(t, a, func(t *testing.T, c nodeagentv1.NodeAgentServiceClient, _ *flows.Log, _ *grpctest.Server) {
		drains := func() *nodeagentv1.ListDrainsResponse {
			t.Helper()
			resp, err := c.ListDrains(t.Context(), &nodeagentv1.ListDrainsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		if got := drains(); len(got.GetDrains()) != 0 || got.GetNodeDraining() {
			t.Errorf("at first: %v", got)
		}
		for range 2 {
			if _, err := c.Drain(t.Context(), &nodeagentv1.DrainRequest{AppId: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		if got := drains(); len(got.GetDrains()) != 1 || !got.GetDrains()[0].GetOwn() {
			t.Errorf("drained: %v", got)
		}
		if _, err := c.Undrain(t.Context(), &nodeagentv1.UndrainRequest{AppId: "a"}); err != nil || a.drained["a"] {
			t.Errorf("undone: %v, %v", a.drained, err)
		}
		if _, err := c.Drain(t.Context(), &nodeagentv1.DrainRequest{}); err != nil || !drains().GetNodeDraining() {
			t.Errorf("the node: %v, %v", drains(), err)
		}
		if _, err := c.Drain(t.Context(), &nodeagentv1.DrainRequest{AppId: "x"}); status.Code(err) != codes.NotFound {
			t.Errorf("an application that is not here: %v", err)
		}
		a.err = errors.New("the disk is full")
		if _, err := c.Undrain(t.Context(), &nodeagentv1.UndrainRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("failed: %v", err)
		}
	})
}
