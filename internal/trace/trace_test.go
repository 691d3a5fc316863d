package trace_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"appswitch.io/internal/telemetry"
	"appswitch.io/internal/trace"
	"github.com/opentracing/opentracing-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tracer returns a real one; its spans are never sent.
func tracer(t *testing.T) opentracing.Tracer {
	t.Helper()
	cfg := telemetry.DefaultConfig()
	cfg.OTLPEndpoint = "http://127.0.0.1:1"
	tel, err := telemetry.New(cfg, telemetry.Options{Program: "test", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return tel.Tracer
}

func TestATraceGoesOn(t *testing.T) {
	tr := tracer(t)
	span := tr.StartSpan("listen")
	defer span.Finish()
	parent := trace.Parent(tr, span)
	if len(parent) != trace.ParentLength {
		t.Fatalf("parent %q", parent)
	}
	spans := trace.Continue(tr, "apply", []string{parent, "nonsense", ""}, nil)
	defer spans.Finish()
	next := spans.Parents()
	if len(next) != 1 || next[0] == parent || next[0][:35] != parent[:35] {
		t.Errorf("%s goes on as %v", parent, next)
	}
}

func TestWithoutTracingNothingHappens(t *testing.T) {
	noop := opentracing.NoopTracer{}
	if p := trace.Parent(noop, noop.StartSpan("x")); p != "" {
		t.Errorf("parent %q", p)
	}
	if p := trace.Parent(noop, nil); p != "" {
		t.Errorf("parent of no span %q", p)
	}
	for _, tr := range []opentracing.Tracer{nil, noop} {
		s := trace.Continue(tr, "x", []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, nil)
		if p := s.Parents(); len(p) != 0 {
			t.Errorf("%v goes on as %v", tr, p)
		}
		s.Finish()
	}
}

func TestParentsAreBounded(t *testing.T) {
	tr := tracer(t)
	span := tr.StartSpan("listen")
	defer span.Finish()
	s := trace.Continue(tr, "x", slices.Repeat([]string{trace.Parent(tr, span)}, 2*trace.MaxParents), nil)
	defer s.Finish()
	if n := len(s.Parents()); n != trace.MaxParents {
		t.Errorf("%d go on", n)
	}
}

func FuzzChecked(f *testing.F) {
	good := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, s := range []string{good, strings.ToUpper(good), good + "0", "", strings.Repeat("-", trace.ParentLength)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := trace.Checked(s); got != "" && (got != s || len(got) != trace.ParentLength || strings.Count(got, "-") != 3) {
			t.Errorf("Checked(%q) = %q", s, got)
		}
	})
}
