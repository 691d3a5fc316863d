package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func TestCallOverTCPAndPipe(t *testing.T) {
	l, dialPipe := Pipe()
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{}, l)
	if err := list(t, gatewayAt(t, s.addr, ClientConfig{})); err != nil {
		t.Errorf("over TCP: %v", err)
	}
	c, err := dialPipe(ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := list(t, gatewayv1.NewGatewayServiceClient(c)); err != nil {
		t.Errorf("over the pipe: %v", err)
	}
	h, err := healthv1.NewHealthClient(c).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h.GetStatus(), err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := list(t, gatewayv1.NewGatewayServiceClient(c)); status.Code(err) != codes.Unavailable {
		t.Errorf("after the stop: %v, want Unavailable", err)
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	cases := map[string]struct {
		err     error
		code    codes.Code
		message string
		field   string
	}{
		"typed":         {Errorf(codes.NotFound, "virtual service %q does not exist", "web").WithFix("see 'ax get vservices'"), codes.NotFound, `virtual service "web" does not exist; see 'ax get vservices'`, ""},
		"wrapped typed": {fmt.Errorf("write: %w", Errorf(codes.Aborted, "conflict")), codes.Aborted, "conflict", ""},
		"with a field":  {Errorf(codes.InvalidArgument, "%q is no address", "x").On("virtual_service.ip"), codes.InvalidArgument, `virtual_service.ip: "x" is no address`, "virtual_service.ip"},
		"invalid":       {Invalid(errors.New("endpoint.id: missing")), codes.InvalidArgument, "endpoint.id: missing", ""},
		"status":        {status.Error(codes.AlreadyExists, "there"), codes.AlreadyExists, "there", ""},
		"context":       {fmt.Errorf("wait: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "wait: context deadline exceeded", ""},
		"cancelled":     {context.Canceled, codes.Canceled, "context canceled", ""},
		"anything else": {errors.New("boom"), codes.Internal, "boom", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(context.Context) error { return c.err }}, table{})
			err := list(t, gatewayAt(t, s.addr, ClientConfig{}))
			st := status.Convert(err)
			if st.Code() != c.code || st.Message() != c.message {
				t.Errorf("got %v %q, want %v %q", st.Code(), st.Message(), c.code, c.message)
			}
			field := ""
			for _, d := range st.Details() {
				if bad, ok := d.(*errdetails.BadRequest); ok {
					field = bad.GetFieldViolations()[0].GetField()
				}
			}
			if field != c.field {
				t.Errorf("field %q, want %q", field, c.field)
			}
		})
	}
}

func TestErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("cause")
	if err := Errorf(codes.Aborted, "x: %w", cause).On("f").WithFix("do %d", 1); !errors.Is(err, cause) || err.Error() != "f: x: cause; do 1" {
		t.Errorf("got %q", err)
	}
}

func TestPanicIsInternalAndTheServerLives(t *testing.T) {
	reg := prometheus.NewRegistry()
	first := true
	s := start(t, ServerConfig{Metrics: reg}, "127.0.0.1:0", doors{list: func(context.Context) error {
		if first {
			first = false
			panic("the secret of the handler")
		}
		return nil
	}}, table{watch: func(context.Context) error { panic("in a stream") }})
	c := gatewayAt(t, s.addr, ClientConfig{})
	err := list(t, c)
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want Internal that tells nothing", err)
	}
	if s.log.count("the secret of the handler") != 1 || s.log.count("rpc_test.go") == 0 {
		t.Errorf("the log lacks the panic or its stack:\n%s", s.log)
	}
	w, err := registryAt(t, s.addr, ClientConfig{}).Watch(t.Context(), &registryv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Recv()
	if _, err := w.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("stream: got %v, want Internal", err)
	}
	if err := list(t, c); err != nil {
		t.Errorf("the next call: %v", err)
	}
	want := "# HELP appswitch_rpc_server_panics_total Calls whose handler panicked.\n# TYPE appswitch_rpc_server_panics_total counter\nappswitch_rpc_server_panics_total 2\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "appswitch_rpc_server_panics_total"); err != nil {
		t.Error(err)
	}
}

func TestMetricsOfBothSides(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := start(t, ServerConfig{Metrics: reg}, "127.0.0.1:0", doors{list: func(context.Context) error { return Errorf(codes.NotFound, "none") }}, table{})
	// Two clients of one process share the metrics.
	for range 2 {
		if err := list(t, gatewayAt(t, s.addr, ClientConfig{Metrics: reg})); status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	for _, side := range []string{"server", "client"} {
		want := fmt.Sprintf(`# HELP appswitch_rpc_%[1]s_calls_total Calls that ended, by gRPC code.
# TYPE appswitch_rpc_%[1]s_calls_total counter
appswitch_rpc_%[1]s_calls_total{code="NotFound",method="/appswitch.gateway.v1.GatewayService/ListProxies"} 2
# HELP appswitch_rpc_%[1]s_in_flight Calls that have not ended.
# TYPE appswitch_rpc_%[1]s_in_flight gauge
appswitch_rpc_%[1]s_in_flight 0
`, side)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "appswitch_rpc_"+side+"_calls_total", "appswitch_rpc_"+side+"_in_flight"); err != nil {
			t.Error(err)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "appswitch_rpc_server_seconds"); n != 1 || err != nil {
		t.Errorf("%d latency series, %v", n, err)
	}
}

func TestTraceCrossesTheWire(t *testing.T) {
	tracer := mocktracer.New()
	inside := ""
	s := start(t, ServerConfig{Tracer: tracer}, "127.0.0.1:0", doors{list: func(ctx context.Context) error {
		opentracing.SpanFromContext(ctx).SetTag("seen", true)
		inside = "yes"
		return errors.New("boom")
	}}, table{watch: func(context.Context) error { return nil }})
	root := tracer.StartSpan("root")
	ctx := opentracing.ContextWithSpan(t.Context(), root)
	if _, err := gatewayAt(t, s.addr, ClientConfig{Tracer: tracer}).ListProxies(ctx, &gatewayv1.ListProxiesRequest{}); err == nil || inside == "" {
		t.Fatalf("got %v, inside %q", err, inside)
	}
	w, err := registryAt(t, s.addr, ClientConfig{Tracer: tracer}).Watch(ctx, &registryv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Recv()
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	root.Finish()
	spans := map[string]*mocktracer.MockSpan{}
	for _, sp := range tracer.FinishedSpans() {
		spans[fmt.Sprint(sp.OperationName, sp.Tag("span.kind"))] = sp
	}
	rootCtx, _ := root.Context().(mocktracer.MockSpanContext)
	for _, method := range []string{"/appswitch.gateway.v1.GatewayService/ListProxies", "/appswitch.registry.v1.RegistryService/Watch"} {
		client, server := spans[method+"client"], spans[method+"server"]
		if client == nil || server == nil {
			t.Fatalf("%s: spans are missing in %v", method, spans)
		}
		if client.ParentID != rootCtx.SpanID || server.ParentID != client.SpanContext.SpanID || server.SpanContext.TraceID != rootCtx.TraceID {
			t.Errorf("%s: the spans are no chain: root %v, client %v, server %v", method, rootCtx, client, server)
		}
	}
	if sp := spans["/appswitch.gateway.v1.GatewayService/ListProxiesserver"]; sp.Tag("grpc.code") != "Internal" || sp.Tag("error") != true || sp.Tag("seen") != true {
		t.Errorf("tags of the failed call: %v", sp.Tags())
	}
}

func TestFailuresAreLoggedByWhoseFaultTheyAre(t *testing.T) {
	var err error
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(context.Context) error { return err }}, table{})
	c := gatewayAt(t, s.addr, ClientConfig{})
	err = errors.New("disk full")
	_ = list(t, c)
	err = Errorf(codes.NotFound, "no such thing")
	_ = list(t, c)
	if out := s.log.String(); !strings.Contains(out, `level=WARN msg="call failed"`) || !strings.Contains(out, "disk full") || strings.Count(out, "level=WARN") != 1 {
		t.Errorf("log:\n%s", out)
	}
}

func TestUnaryCallsGetADeadline(t *testing.T) {
	var left time.Duration
	s := start(t, ServerConfig{}, "127.0.0.1:0", doors{list: func(ctx context.Context) error {
		d, _ := ctx.Deadline()
		left = time.Until(d)
		return nil
	}}, table{})
	if _, err := gatewayAt(t, s.addr, ClientConfig{}).ListProxies(context.WithoutCancel(t.Context()), &gatewayv1.ListProxiesRequest{}); err != nil {
		t.Fatal(err)
	}
	if left <= 0 || left > CallTimeout {
		t.Errorf("the handler has %v left, want at most %v", left, CallTimeout)
	}
}

func TestReflectionCanBeSwitchedOff(t *testing.T) {
	for _, on := range []bool{true, false} {
		log, _ := newLog()
		s, err := NewServer(ServerConfig{Log: log, Reflection: on})
		if err != nil {
			t.Fatal(err)
		}
		if _, has := s.GetServiceInfo()["grpc.reflection.v1.ServerReflection"]; has != on {
			t.Errorf("Reflection %v: registered %v", on, has)
		}
		s.Stop()
	}
}

func TestWarnsOncePerReachablePlaintextAddress(t *testing.T) {
	loopback := start(t, ServerConfig{}, "127.0.0.1:0", doors{}, table{})
	_ = loopback.stop()
	if loopback.log.count("neither encrypted") != 0 {
		t.Error("warned about loopback")
	}
	all := start(t, ServerConfig{}, "0.0.0.0:0", doors{}, table{})
	_ = list(t, gatewayAt(t, all.addr, ClientConfig{}))
	_ = all.stop()
	if n := all.log.count("neither encrypted"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

func TestAdministrationIsForTrustedPeers(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(mustAddrPort(s)) }
	cases := map[string]struct {
		peer *peer.Peer
		want bool
	}{
		"nobody":                 {nil, false},
		"loopback":               {&peer.Peer{Addr: tcp("127.0.0.1:9"), LocalAddr: tcp("127.0.0.1:6665")}, true},
		"own address":            {&peer.Peer{Addr: tcp("10.0.2.15:9"), LocalAddr: tcp("10.0.2.15:6665")}, true},
		"another machine":        {&peer.Peer{Addr: tcp("10.0.2.16:9"), LocalAddr: tcp("10.0.2.15:6665")}, false},
		"unix socket":            {&peer.Peer{Addr: &net.UnixAddr{Net: "unix"}}, true},
		"another, local unknown": {&peer.Peer{Addr: tcp("10.0.2.16:9")}, false},
	}
	for name, c := range cases {
		ctx := t.Context()
		if c.peer != nil {
			ctx = peer.NewContext(ctx, c.peer)
		}
		h := &serverHooks{}
		if got := h.admit(ctx, registryv1.RegistryService_CreateVirtualService_FullMethodName) == nil; got != c.want {
			t.Errorf("%s: admitted %v, want %v", name, got, c.want)
		}
		if err := h.admit(ctx, registryv1.RegistryService_Watch_FullMethodName); err != nil {
			t.Errorf("%s: Watch: %v", name, err)
		}
	}
	for m := range adminMethods {
		service, method, _ := strings.Cut(strings.TrimPrefix(m, "/"), "/")
		found := false
		for _, d := range registryv1.RegistryService_ServiceDesc.Methods {
			found = found || d.MethodName == method && registryv1.RegistryService_ServiceDesc.ServiceName == service
		}
		if !found {
			t.Errorf("%s is not in the contracts", m)
		}
	}
}

var _ grpc.ServiceRegistrar = (*Server)(nil)
