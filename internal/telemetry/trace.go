package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"appswitch.io/internal/version"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	bridge "go.opentelemetry.io/otel/bridge/opentracing"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Limits of the way that spans take.
const (
	maxQueuedSpans = 4096            // that have ended and wait to be sent; more are dropped and counted
	maxSpanBatch   = 512             // sent at once
	sendSpansEvery = 2 * time.Second // at the latest
	sendTimeout    = 5 * time.Second // of one batch; then it is dropped and counted
	stopTracing    = 2 * time.Second // for the last batch on shutdown
	sampleRatio    = 1.0             // of traces that begin here; those begun elsewhere follow their beginning
)

// exporter sends spans; an OTLP exporter in earnest.
type exporter interface {
	Start(ctx context.Context) error
	ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error
	Shutdown(ctx context.Context) error
}

// spanQueue takes spans that have ended and sends them in batches. Unlike the SDK's batch processor it starts no
// goroutine before run is called.
type spanQueue struct {
	log     *slog.Logger
	to      exporter
	queue   chan sdktrace.ReadOnlySpan
	dropped prometheus.Counter
	sent    prometheus.Counter
}

func newSpanQueue(to exporter, log *slog.Logger, reg prometheus.Registerer) (*spanQueue, error) {
	q := &spanQueue{
		log: log, to: to, queue: make(chan sdktrace.ReadOnlySpan, maxQueuedSpans),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "appswitch_trace_spans_dropped_total", Help: "Spans lost: the queue was full or the collector did not take them."}),
		sent:    prometheus.NewCounter(prometheus.CounterOpts{Name: "appswitch_trace_spans_sent_total", Help: "Spans that the collector took."}),
	}
	return q, errors.Join(reg.Register(q.dropped), reg.Register(q.sent))
}

// newTracer builds a tracer that sends its spans to an OpenTelemetry collector.
func newTracer(endpoint, program string, log *slog.Logger, reg prometheus.Registerer) (*spanQueue, opentracing.Tracer, error) {
	// The queue is ours, so are the retries: a batch that is refused is dropped, and the next one tried.
	to := otlptrace.NewUnstarted(otlptracegrpc.NewClient(
		otlptracegrpc.WithEndpointURL(endpoint), otlptracegrpc.WithTimeout(sendTimeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}),
	))
	q, err := newSpanQueue(to, log, reg)
	if err != nil {
		return nil, nil, fmt.Errorf("register metric: %w", err)
	}
	return q, q.tracer(program), nil
}

func (q *spanQueue) tracer(program string) opentracing.Tracer {
	about := resource.NewSchemaless(attribute.String("service.name", program), attribute.String("service.version", version.Get().Number))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(q), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sampleRatio))),
	)
	t := bridge.NewBridgeTracer()
	t.SetOpenTelemetryTracer(provider.Tracer("appswitch.io"))
	t.SetTextMapPropagator(propagation.TraceContext{})
	t.SetWarningHandler(func(msg string) { q.log.Debug("tracing bridge", "message", msg) })
	return t
}

// OnStart implements sdktrace.SpanProcessor.
func (q *spanQueue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case q.queue <- s:
	default:
		q.dropped.Inc()
	}
}

// Shutdown implements sdktrace.SpanProcessor; run ends the queue.
func (q *spanQueue) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (q *spanQueue) ForceFlush(context.Context) error { return nil }

// run sends what arrives until ctx ends, then what is left.
func (q *spanQueue) run(ctx context.Context) error {
	if err := q.to.Start(ctx); err != nil {
		return fmt.Errorf("--otlp-endpoint: %w", err)
	}
	tick := time.NewTicker(sendSpansEvery)
	defer tick.Stop()
	batch := make([]sdktrace.ReadOnlySpan, 0, maxSpanBatch)
	for {
		select {
		case s := <-q.queue:
			if batch = append(batch, s); len(batch) == maxSpanBatch {
				batch = q.send(ctx, batch)
			}
		case <-tick.C:
			batch = q.send(ctx, batch)
		case <-ctx.Done():
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTracing)
			defer cancel()
			return q.finish(late, batch)
		}
	}
}

// finish sends what is in the queue and leaves the collector.
func (q *spanQueue) finish(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	for {
		select {
		case s := <-q.queue:
			if batch = append(batch, s); len(batch) == maxSpanBatch {
				batch = q.send(ctx, batch)
			}
			continue
		default:
		}
		q.send(ctx, batch)
		if err := q.to.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("leave the trace collector: %w", err)
		}
		return nil
	}
}

// send hands a batch over and returns it emptied.
func (q *spanQueue) send(ctx context.Context, batch []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	if len(batch) == 0 {
		return batch
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := q.to.ExportSpans(ctx, batch); err != nil {
		q.dropped.Add(float64(len(batch)))
		q.log.Debug("trace collector did not take spans", "spans", len(batch), "error", err)
	} else {
		q.sent.Add(float64(len(batch)))
	}
	clear(batch)
	return batch[:0]
}
