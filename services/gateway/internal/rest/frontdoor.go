package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxDrain is how much of a body that is too large is read, and dropped, before the answer.
const maxDrain = 8 * MaxBody

// streams are the paths whose answer is a stream: it lasts as long as caller and server like.
var streams = map[string]bool{"/v1/flows": true, "/v1/watch": true}

// frontDoor is what every request passes: limits, deadlines, metrics, traces.
type frontDoor struct {
	log         *slog.Logger
	tracer      opentracing.Tracer
	patience    time.Duration // of a stream's message
	slots       chan struct{} // one for each request in flight
	streamSlots chan struct{} // and for each of them that is a stream
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	refused     *prometheus.CounterVec
	panics      prometheus.Counter
}

func newFrontDoor(cfg Config) (*frontDoor, error) {
	name := func(s string) string { return "appswitch_gateway_rest_" + s }
	d := &frontDoor{
		log: cfg.Log, tracer: cfg.Tracer, patience: cfg.writeTimeout,
		slots: make(chan struct{}, MaxRequests), streamSlots: make(chan struct{}, MaxStreams),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("requests_total"), Help: "REST calls that ended, by path of the API and HTTP status."}, []string{"path", "status"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name("seconds"), Help: "Duration of REST calls.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8)}, []string{"path"}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("refused_total"), Help: "Requests refused before the API: too many at once (limit), too many streams (streams), a body too large (body), sent by a web page (guard)."}, []string{"reason"}),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: name("panics_total"), Help: "Requests whose handler panicked."}),
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name("in_flight"), Help: "Requests that have not ended."}, func() float64 { return float64(len(d.slots)) })
	for _, c := range []prometheus.Collector{d.requests, d.seconds, d.refused, d.panics, inFlight} {
		if err := cfg.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	for _, r := range []string{"limit", "streams", "body", "guard"} {
		d.refused.WithLabelValues(r)
	}
	return d, nil
}

// limit bounds requests in flight and their bodies, and survives a handler that panics.
func (d *frontDoor) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		select {
		case d.slots <- struct{}{}:
			defer func() { <-d.slots }()
		default:
			d.refused.WithLabelValues("limit").Inc()
			h.Set("Retry-After", "1")
			writeStatus(w, http.StatusServiceUnavailable, status.Newf(codes.ResourceExhausted, "%d requests are in flight already: try again", MaxRequests))
			return
		}
		if r.ContentLength > MaxBody {
			d.refused.WithLabelValues("body").Inc()
			if r.Header.Get("Expect") == "" {
				// A client that is still sending when the connection closes sees a reset instead of the answer.
				_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
			}
			writeStatus(w, http.StatusRequestEntityTooLarge, status.Newf(codes.InvalidArgument, "the body is larger than %d bytes", MaxBody))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				d.survive(sw, r, p)
			}
		}()
		next.ServeHTTP(sw, r)
	})
}

func (d *frontDoor) survive(w *statusWriter, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p) // how net/http is told to drop a connection
	}
	d.panics.Inc()
	d.log.Error("request panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status == 0 {
		writeStatus(w, http.StatusInternalServerError, status.New(codes.Internal, "internal error: see the log of the gateway"))
	}
}

// aroundCall gives each call of the API its deadline, or as a stream its end with the server, and accounts for it.
func (d *frontDoor) aroundCall(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		pattern := "other"
		if p, ok := runtime.HTTPPattern(r.Context()); ok {
			pattern = p.String()
		}
		span, ctx := d.span(r, pattern)
		defer span.Finish()
		sw := &statusWriter{ResponseWriter: w}
		start := time.Now()
		if streams[pattern] {
			d.stream(sw, r.WithContext(ctx), params, next)
		} else {
			ctx, cancel := context.WithTimeout(ctx, CallTimeout)
			defer cancel()
			next(sw, r.WithContext(ctx), params)
		}
		if sw.status == 0 {
			sw.status = http.StatusOK
		}
		d.requests.WithLabelValues(pattern, strconv.Itoa(sw.status)).Inc()
		d.seconds.WithLabelValues(pattern).Observe(time.Since(start).Seconds())
		ext.HTTPStatusCode.Set(span, uint16(sw.status)) // a status has three digits
		if sw.status >= http.StatusInternalServerError {
			ext.Error.Set(span, true)
		}
		d.log.Debug("REST call", "method", r.Method, "path", r.URL.Path, "status", sw.status, "duration", time.Since(start))
	}
}

// stream handles a call whose answer lasts until the caller goes or the server stops.
func (d *frontDoor) stream(w *statusWriter, r *http.Request, params map[string]string, next runtime.HandlerFunc) {
	select {
	case d.streamSlots <- struct{}{}:
		defer func() { <-d.streamSlots }()
	default:
		d.refused.WithLabelValues("streams").Inc()
		writeStatus(w, http.StatusServiceUnavailable, status.Newf(codes.ResourceExhausted, "%d streams are open already: try again", MaxStreams))
		return
	}
	ctx, cancel := endWithServer(r.Context())
	defer cancel()
	sw, err := newStreamWriter(w, d.patience)
	if err != nil {
		writeStatus(w, http.StatusInternalServerError, status.New(codes.Internal, err.Error()))
		return
	}
	next(sw, r.WithContext(ctx), params)
}

func (d *frontDoor) span(r *http.Request, pattern string) (opentracing.Span, context.Context) {
	// An identity that is missing or malformed just makes this span the first of its trace.
	parent, _ := d.tracer.Extract(opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(r.Header))
	span := d.tracer.StartSpan(r.Method+" "+pattern, ext.RPCServerOption(parent))
	ext.HTTPMethod.Set(span, r.Method)
	return span, opentracing.ContextWithSpan(r.Context(), span)
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// streamWriter gives each message of a stream the time that other answers have as a whole. Between messages no deadline
// runs: one that has passed can't be set again.
type streamWriter struct {
	*statusWriter
	control  *http.ResponseController
	patience time.Duration
}

func newStreamWriter(w *statusWriter, patience time.Duration) (*streamWriter, error) {
	sw := &streamWriter{statusWriter: w, control: http.NewResponseController(w.ResponseWriter), patience: patience}
	return sw, sw.deadline(time.Time{})
}

func (w *streamWriter) deadline(t time.Time) error {
	if err := w.control.SetWriteDeadline(t); err != nil {
		return fmt.Errorf("set the deadline of a stream: %w", err)
	}
	return nil
}

// Write implements http.ResponseWriter.
func (w *streamWriter) Write(p []byte) (int, error) {
	if err := w.deadline(time.Now().Add(w.patience)); err != nil {
		return 0, err
	}
	return w.statusWriter.Write(p)
}

// FlushError ends a message; http.ResponseController finds it.
func (w *streamWriter) FlushError() error {
	return errors.Join(w.control.Flush(), w.deadline(time.Time{}))
}
