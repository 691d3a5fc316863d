package status

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/service"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProblems(t *testing.T) {
	well := func() *nodeagentv1.GetStatusResponse {
		return &nodeagentv1.GetStatusResponse{
			SnapshotRevision: 1, SnapshotAge: durationpb.New(time.Second), RouterConnected: true, RegistryConnected: true, PendingWrites: 3,
		}
	}
	for _, tc := range []struct {
		name  string
		upset func(*nodeagentv1.GetStatusResponse)
		want  string
	}{
		{"nothing", func(*nodeagentv1.GetStatusResponse) {}, ""},
		{"no lease", func(a *nodeagentv1.GetStatusResponse) { a.RegistryConnected = false }, "the node has no lease"},
		{"no routes", func(a *nodeagentv1.GetStatusResponse) { a.SnapshotRevision = 0 }, "no routes have come yet"},
		{"router away", func(a *nodeagentv1.GetStatusResponse) { a.RouterConnected = false }, "the router can't be reached"},
		{"router silent", func(a *nodeagentv1.GetStatusResponse) { a.SnapshotAge = durationpb.New(time.Minute) }, "1m0s old: the router does not confirm them"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			agent := well()
			tc.upset(agent)
			got := strings.Join(problems(agent), "; ")
			if !strings.Contains(got, tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestSilence: what listens and never answers is reported within the time allowed, each service for itself.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addrs := map[service.Peer]string{}
	for _, p := range []service.Peer{service.Registry, service.Router, service.Resolver, service.NodeAgent} {
		addrs[p] = l.Addr().String()
	}
	begin := time.Now()
	r := Get(context.Background(), Options{Addrs: addrs, Gateway: func(context.Context) (string, error) { return "", errors.New("no gateway") }})
	if took := time.Since(begin); took > 2*Timeout {
		t.Errorf("took %s", took)
	}
	if r.Healthy() || r.Agent != nil || len(r.Services) != 5 {
		t.Fatalf("got %+v", r)
	}
	for _, s := range r.Services {
		if s.OK || s.Detail == "" {
			t.Errorf("got %+v", s)
		}
	}
}
