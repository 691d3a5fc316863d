package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// callMetrics counts the calls of one side. Its label values are bounded: methods come from the contracts.
type callMetrics struct {
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

// newCallMetrics registers the metrics, or takes those that another server or client of the process has registered.
func newCallMetrics(reg prometheus.Registerer, side string) (*callMetrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	name := func(s string) string { return "appswitch_rpc_" + side + "_" + s }
	m := &callMetrics{
		calls:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("calls_total"), Help: "Calls that ended, by gRPC code."}, []string{"method", "code"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name("seconds"), Help: "Duration of calls.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: name("in_flight"), Help: "Calls that have not ended."}),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: name("panics_total"), Help: "Calls whose handler panicked."}),
	}
	err := errors.Join(register(reg, &m.calls), register(reg, &m.seconds), register(reg, &m.inFlight))
	if side == "server" { // only handlers panic
		err = errors.Join(err, register(reg, &m.panics))
	}
	return m, err
}

func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if again := (prometheus.AlreadyRegisteredError{}); errors.As(err, &again) {
		if existing, ok := again.ExistingCollector.(C); ok {
			*c = existing
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("register metric: %w", err)
	}
	return nil
}

func (m *callMetrics) observe(method string, code codes.Code, d time.Duration) {
	m.calls.WithLabelValues(method, code.String()).Inc()
	m.seconds.WithLabelValues(method).Observe(d.Seconds())
}

// carrier passes a span's identity through the metadata of a call.
type carrier metadata.MD

// Set implements opentracing.TextMapWriter.
func (c carrier) Set(key, value string) {
	k := strings.ToLower(key)
	c[k] = append(c[k], value)
}

// ForeachKey implements opentracing.TextMapReader.
func (c carrier) ForeachKey(handler func(key, value string) error) error {
	for k, values := range c {
		for _, v := range values {
			if err := handler(k, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func serverSpan(ctx context.Context, t opentracing.Tracer, method string) (opentracing.Span, context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	// An identity that is missing or malformed just makes this span the first of its trace.
	parent, _ := t.Extract(opentracing.HTTPHeaders, carrier(md))
	span := t.StartSpan(method, ext.RPCServerOption(parent), opentracing.Tag{Key: string(ext.Component), Value: "grpc"})
	return span, opentracing.ContextWithSpan(ctx, span)
}

func clientSpan(ctx context.Context, t opentracing.Tracer, method string) (opentracing.Span, context.Context) {
	opts := []opentracing.StartSpanOption{ext.SpanKindRPCClient, opentracing.Tag{Key: string(ext.Component), Value: "grpc"}}
	if parent := opentracing.SpanFromContext(ctx); parent != nil {
		opts = append(opts, opentracing.ChildOf(parent.Context()))
	}
	span := t.StartSpan(method, opts...)
	md, ok := metadata.FromOutgoingContext(ctx)
	if md = md.Copy(); !ok {
		md = metadata.MD{}
	}
	if err := t.Inject(span.Context(), opentracing.HTTPHeaders, carrier(md)); err == nil {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	return span, opentracing.ContextWithSpan(ctx, span)
}

func endSpan(span opentracing.Span, code codes.Code, err error) {
	span.SetTag("grpc.code", code.String())
	if err != nil {
		ext.Error.Set(span, true)
		span.LogKV("error", err.Error())
	}
	span.Finish()
}
