package tally

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func byApp(f *nodeagentv1.Flow) (string, string) { return f.GetAppId(), f.GetAppName() }

func flow(app, name string, verdict routerv1.Verdict, errno string, retries uint32) *nodeagentv1.WatchFlowsResponse {
	return &nodeagentv1.WatchFlowsResponse{Flow: &nodeagentv1.Flow{AppId: app, AppName: name, Verdict: verdict, Errno: errno, Retries: retries}}
}

func TestTally(t *testing.T) {
	allow, deny, pass := routerv1.Verdict_VERDICT_ALLOW, routerv1.Verdict_VERDICT_DENY, routerv1.Verdict_VERDICT_PASSTHROUGH
	tl := New(byApp)
	for _, m := range []*nodeagentv1.WatchFlowsResponse{
		flow("a", "web", allow, "", 0), flow("b", "cron", deny, "ECONNREFUSED", 0), flow("a", "", allow, "ECONNREFUSED", 2),
		flow("a", "web", pass, "EINPROGRESS", 0), flow("c", "alone", deny, "ENETDOWN", 0), {Missed: 7},
	} {
		tl.Add(m)
	}
	rows, missed := tl.Take(2 * time.Second)
	want := []Row{
		{Key: "a", Name: "web", Rate: 1.5, Allowed: 2, Passed: 1, Failed: 1, Retried: 1},
		{Key: "c", Name: "alone", Rate: 0.5, Denied: 1},
		{Key: "b", Name: "cron", Rate: 0.5, Denied: 1},
	}
	if !reflect.DeepEqual(rows, want) || missed != 7 {
		t.Errorf("got %+v, %d missed; want %+v", rows, missed, want)
	}
	if rows, missed := tl.Take(time.Second); rows != nil || missed != 0 {
		t.Errorf("after it was taken: %v, %d", rows, missed)
	}
}

func TestTallyIsBounded(t *testing.T) {
	tl := New(byApp)
	for i := range 2 * MaxKeys {
		tl.Add(flow(fmt.Sprint(i), "", routerv1.Verdict_VERDICT_ALLOW, "", 0))
	}
	rows, _ := tl.Take(time.Second)
	if len(rows) != MaxKeys+1 || rows[0].Key != Other || rows[0].Allowed != MaxKeys {
		t.Errorf("%d rows, first %+v", len(rows), rows[0])
	}
}
