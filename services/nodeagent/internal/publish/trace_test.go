package publish

import (
	"io"
	"testing"

	"appswitch.io/internal/axpb"
	"appswitch.io/internal/telemetry"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
)

// TestAListenIsATrace: a span from the listen to its confirmation, however often it must be tried, and none left open.
func TestAListenIsATrace(t *testing.T) {
	bubble(t, Config{}, func(g *rig) {
		tracer := mocktracer.New()
		g.deps.Tracer = tracer
		g.PutEndpoint(endpoint(1))
		g.PutEndpoint(endpoint(1)) // nothing new
		g.PutEndpoint(endpoint(2))
		g.DropEndpoint("e2") // before it was ever published
		g.PutApp(app(1))
		g.start()
		g.expect("a1 e1")
		spans := tracer.FinishedSpans()
		if len(spans) != 2 {
			t.Fatalf("%d spans: %v", len(spans), spans)
		}
		if s := spans[1]; s.OperationName != "listen" || s.Tag("service") != "1.1.1.1:80" || s.Tag("app") != "a1" || s.Tag("node") != "n1" {
			t.Errorf("%s %v", s.OperationName, s.Tags())
		}
		// Under a new lease it is written again, but nobody has listened.
		g.registry.expire(g.registry.current)
		g.PutApp(app(2))
		g.expect("")
		if n := len(tracer.FinishedSpans()); n != 2 {
			t.Errorf("%d spans under the new lease", n)
		}
	})
}

func TestRecordsCarryTheirTrace(t *testing.T) {
	tracer := traced(t)
	d := newDesired()
	e := endpoint(1)
	d.put(endpointKey(e.ID), e)
	d.begin(endpointKey(e.ID), e, tracer)
	changes := d.take(1)
	r, err := axpb.RecordFrom(changes[0].proto(tracer).GetPut())
	if err != nil || r.Trace == "" {
		t.Errorf("trace %q, %v", r.Trace, err)
	}
	d.requeue(changes)
	if again := d.take(1)[0].proto(tracer).GetPut().GetTraceParent(); again != r.Trace {
		t.Errorf("tried again in trace %q, was %q", again, r.Trace)
	}
}

// traced returns a tracer whose spans have identities; they are never sent.
func traced(t *testing.T) opentracing.Tracer {
	t.Helper()
	cfg := telemetry.DefaultConfig()
	cfg.OTLPEndpoint = "http://127.0.0.1:1"
	tel, err := telemetry.New(cfg, telemetry.Options{Program: "test", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return tel.Tracer
}
