package axpb_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

func TestHealthSurvivesTheWire(t *testing.T) {
	e := ax.Endpoint{
		ID: "e", App: "0000000a", Node: "n", Proto: ax.TCP, Service: netip.MustParseAddrPort("1.1.1.1:80"), Host: netip.MustParseAddrPort("10.0.0.1:40000"),
		Draining: true,
	}
	for _, h := range []ax.Health{{}, {State: ax.Healthy}, {State: ax.Unhealthy, Reason: "HTTP 503"}} {
		e.Health = h
		if got, err := axpb.EndpointFrom(axpb.Endpoint(e)); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, %v, want %+v", got, err, e)
		}
	}
	app := ax.App{ID: "0000000a", Node: "n", Addr: netip.MustParseAddr("1.1.1.1"), Draining: true}
	for _, c := range []ax.HealthCheck{
		{},
		{Type: ax.CheckTCP, Port: 8080, Interval: time.Second, Timeout: time.Second, Failures: 1, Successes: 2},
		{Type: ax.CheckGRPC, Path: "echo.v1.Echo", Interval: time.Minute, Timeout: time.Second, Failures: 3, Successes: 1},
	} {
		app.Check = c
		if got, err := axpb.AppFrom(axpb.App(app)); err != nil || !reflect.DeepEqual(got, app) {
			t.Errorf("got %+v, %v, want %+v", got, err, app)
		}
	}
}

func TestBadHealth(t *testing.T) {
	if _, err := axpb.HealthFrom(&typev1.Health{Reason: strings.Repeat("x", 129)}); err == nil {
		t.Error("an endless reason is accepted")
	}
	if h, err := axpb.HealthFrom(&typev1.Health{State: 77}); err != nil || h.State != ax.Unchecked {
		t.Errorf("a state of a newer version: %v, %v", h, err)
	}
	p := axpb.HealthCheck(ax.HealthCheck{Type: ax.CheckHTTP, Path: "/", Interval: time.Second, Timeout: time.Second, Failures: 1, Successes: 1})
	p.Path = "no slash"
	if _, err := axpb.HealthCheckFrom(p); err == nil {
		t.Error("a path without slash is accepted")
	}
	p.Type = 77
	if c, err := axpb.HealthCheckFrom(p); err != nil || c != (ax.HealthCheck{}) {
		t.Errorf("a type of a newer version: %+v, %v", c, err)
	}
}
