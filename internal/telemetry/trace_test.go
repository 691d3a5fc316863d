package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collector is an OpenTelemetry collector that keeps spans.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu       sync.Mutex // guards what follows
	spans    map[string]*tracev1.Span
	services []string
}

func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				c.services = append(c.services, a.GetValue().GetStringValue())
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans[s.GetName()] = s
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func TestSpansReachACollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{spans: map[string]*tracev1.Span{}}
	srv := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(srv, c)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	tel, _ := build(t, func(c *Config) { c.OTLPEndpoint = "http://" + l.Addr().String() }, Options{})
	runFor(t, tel, func() {
		root := tel.Tracer.StartSpan("root")
		// Over the wire and back, as HTTP and gRPC carry it.
		h := http.Header{}
		if err := tel.Tracer.Inject(root.Context(), opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(h)); err != nil {
			t.Fatal(err)
		}
		if h.Get("Traceparent") == "" {
			t.Errorf("no W3C trace context in %v", h)
		}
		parent, err := tel.Tracer.Extract(opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(h))
		if err != nil {
			t.Fatal(err)
		}
		child := tel.Tracer.StartSpan("child", opentracing.ChildOf(parent))
		child.Finish()
		root.Finish()
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	root, child := c.spans["root"], c.spans["child"]
	if root == nil || child == nil {
		t.Fatalf("spans that arrived: %v", c.spans)
	}
	if string(child.GetTraceId()) != string(root.GetTraceId()) || string(child.GetParentSpanId()) != string(root.GetSpanId()) {
		t.Errorf("child %v is not of root %v", child, root)
	}
	if len(c.services) == 0 || c.services[0] != "testd" {
		t.Errorf("services: %v", c.services)
	}
}

func TestAwayCollectorHoldsNothingUp(t *testing.T) {
	tel, _ := build(t, func(c *Config) { c.OTLPEndpoint = "http://" + freePort(t) }, Options{})
	begin := time.Now()
	runFor(t, tel, func() { tel.Tracer.StartSpan("lost").Finish() })
	if d := time.Since(begin); d > stopTracing+2*time.Second {
		t.Errorf("the end took %v", d)
	}
	if n := testutil.ToFloat64(tel.spans.dropped); n != 1 {
		t.Errorf("%v spans counted as dropped, want 1", n)
	}
}

// fakeExporter takes or refuses batches.
type fakeExporter struct {
	batches []int
	err     error
}

func (f *fakeExporter) Start(context.Context) error    { return nil }
func (f *fakeExporter) Shutdown(context.Context) error { return nil }
func (f *fakeExporter) ExportSpans(_ context.Context, s []sdktrace.ReadOnlySpan) error {
	f.batches = append(f.batches, len(s))
	return f.err
}

func TestSpanQueueIsBounded(t *testing.T) {
	to := &fakeExporter{}
	q, err := newSpanQueue(to, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tracer := q.tracer("x")
	const surplus = 10
	for range maxQueuedSpans + surplus {
		tracer.StartSpan("s").Finish()
	}
	if n := testutil.ToFloat64(q.dropped); n != surplus {
		t.Errorf("dropped %v, want %d", n, surplus)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.run(ctx); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range to.batches {
		if total += n; n > maxSpanBatch {
			t.Errorf("a batch of %d", n)
		}
	}
	if total != maxQueuedSpans || testutil.ToFloat64(q.sent) != maxQueuedSpans {
		t.Errorf("sent %d in %v, counted %v", total, to.batches, testutil.ToFloat64(q.sent))
	}
}

func TestRefusedBatchesAreCounted(t *testing.T) {
	to := &fakeExporter{err: errors.New("no")}
	q, err := newSpanQueue(to, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	q.tracer("x").StartSpan("s").Finish()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(q.dropped); n != 1 {
		t.Errorf("dropped %v, want 1", n)
	}
}

func TestUnreadableEndpointIsRefused(t *testing.T) {
	cfg := DefaultConfig()
	cfg.OTLPEndpoint = "http://%zz"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--otlp-endpoint") {
		t.Errorf("got %v", err)
	}
}
