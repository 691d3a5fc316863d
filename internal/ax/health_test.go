package ax_test

import (
	"testing"
	"time"

	"appswitch.io/internal/ax"
)

func TestParseHealthCheck(t *testing.T) {
	for in, want := range map[string]ax.HealthCheck{
		"tcp":                     {Type: ax.CheckTCP},
		"tcp:8080":                {Type: ax.CheckTCP, Port: 8080},
		"http":                    {Type: ax.CheckHTTP, Path: "/"},
		"http:/healthz?full=1":    {Type: ax.CheckHTTP, Path: "/healthz?full=1"},
		"http:8080":               {Type: ax.CheckHTTP, Port: 8080, Path: "/"},
		"http:8080/a:b":           {Type: ax.CheckHTTP, Port: 8080, Path: "/a:b"},
		"grpc":                    {Type: ax.CheckGRPC},
		"grpc:echo.v1.Echo":       {Type: ax.CheckGRPC, Path: "echo.v1.Echo"},
		"grpc:50051":              {Type: ax.CheckGRPC, Port: 50051},
		"grpc:50051/echo.v1.Echo": {Type: ax.CheckGRPC, Port: 50051, Path: "echo.v1.Echo"},
	} {
		got, err := ax.ParseHealthCheck(in)
		want.Interval, want.Timeout, want.Failures, want.Successes = 5*time.Second, time.Second, 3, 1
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", in, got, err, want)
			continue
		}
		if again, err := ax.ParseHealthCheck(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which is read as %+v, %v", in, got, again, err)
		}
	}
	for _, in := range []string{"", "udp", "HTTP:/", "tcp:x", "tcp:0", "tcp:70000", "tcp:80/x", "http:x", "http:0/", "http:/a b", "grpc:80x", "grpc:80/", "http:/\n"} {
		if got, err := ax.ParseHealthCheck(in); err == nil {
			t.Errorf("%q is read as %+v", in, got)
		}
	}
}

func TestHealthOptions(t *testing.T) {
	got, err := ax.HealthOptions{Check: "http:/", Interval: "500ms", Failures: "1", Successes: "2"}.HealthCheck()
	want := ax.HealthCheck{Type: ax.CheckHTTP, Path: "/", Interval: 500 * time.Millisecond, Timeout: 500 * time.Millisecond, Failures: 1, Successes: 2}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := (ax.HealthOptions{}).HealthCheck(); err != nil || got != (ax.HealthCheck{}) {
		t.Errorf("without options: %+v, %v", got, err)
	}
	for _, o := range []ax.HealthOptions{
		{Interval: "1s"}, {Check: "tcp", Interval: "1"}, {Check: "tcp", Interval: "1ms"}, {Check: "tcp", Interval: "2h"}, {Check: "tcp", Timeout: "6s"},
		{Check: "tcp", Timeout: "0s"}, {Check: "tcp", Failures: "0"}, {Check: "tcp", Failures: "many"}, {Check: "tcp", Successes: "101"},
	} {
		if got, err := o.HealthCheck(); err == nil {
			t.Errorf("%+v is read as %+v", o, got)
		}
	}
}
