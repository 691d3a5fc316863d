//go:build e2e

package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collector is an OpenTelemetry collector that keeps spans.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu    sync.Mutex // guards spans
	spans []*tracev1.Span
}

// Export implements the collector's service.
func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// collect runs a collector on the laboratory's machine.
func collect(t *testing.T, lab *harness.Lab, address string) *collector {
	t.Helper()
	c, srv := &collector{}, grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(srv, c)
	l := lab.Listen(address)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

// traceOf returns the paths of the spans in the trace of a listen, each from the listen on.
func (c *collector) traceOf(service string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	root := slices.IndexFunc(c.spans, func(s *tracev1.Span) bool {
		return s.GetName() == "listen" && slices.ContainsFunc(s.GetAttributes(), func(a *commonv1.KeyValue) bool {
			return a.GetKey() == "service" && a.GetValue().GetStringValue() == service
		})
	})
	if root < 0 {
		return nil, fmt.Errorf("no listen of %s in %d spans", service, len(c.spans))
	}
	byID, paths := map[string]*tracev1.Span{}, []string{}
	for _, s := range c.spans {
		if string(s.GetTraceId()) == string(c.spans[root].GetTraceId()) {
			byID[hex.EncodeToString(s.GetSpanId())] = s
		}
	}
	for _, s := range byID {
		path := s.GetName()
		for s = byID[hex.EncodeToString(s.GetParentSpanId())]; s != nil; s = byID[hex.EncodeToString(s.GetParentSpanId())] {
			path = s.GetName() + " > " + path
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths, nil
}

// TestOneTraceFromListenToRoutes: what a listen sets off, across services, is one trace.
func TestOneTraceFromListenToRoutes(t *testing.T) {
	const address = "127.0.0.1:4317"
	const write = "/appswitch.registry.v1.RegistryService/Write"
	want := []string{
		"listen",
		"listen > " + write,
		"listen > " + write + " > " + write,
		"listen > " + write + " > " + write + " > etcd write",
		"listen > resolver apply",
		"listen > router apply",
		"listen > router apply > nodeagent apply",
	}
	for _, shape := range []harness.Shape{harness.OneProcess, harness.Processes} { // of two routers, both apply it
		t.Run(string(shape), func(t *testing.T) {
			lab := harness.New(t)
			c := collect(t, lab, address)
			lab.StartShape(shape, "--otlp-endpoint", "http://"+address)
			lab.Start("ax run --ip 1.1.1.1 --", lab.GoProgram("goserver"), "-listen", ":80")
			lab.Serving("1.1.1.1:80", 1)
			lab.Eventually(20*time.Second, "the trace is whole", func() error {
				got, err := c.traceOf("1.1.1.1:80")
				if err == nil && !slices.Equal(got, want) {
					err = errors.New("the trace is\n" + strings.Join(got, "\n"))
				}
				return err
			})
		})
	}
}
