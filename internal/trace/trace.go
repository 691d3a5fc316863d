// Package trace carries a trace where no call does: through the service table, from who wrote a record to who acts on it.
//
// What is carried is a W3C traceparent, a string of fixed length, so that a record stays bounded. Its invariant: without
// tracing everything here does nothing and costs nothing. Start reading at [Parent] and [Continue].
package trace

import (
	"strings"

	"github.com/opentracing/opentracing-go"
)

// Limits of what is carried.
const (
	ParentLength = 55 // bytes of a traceparent
	MaxParents   = 16 // traces that one batch of changes continues; others end there
)

// Parent returns what makes a later span the child of this one; empty if the span is not traced.
func Parent(t opentracing.Tracer, span opentracing.Span) string {
	if span == nil {
		return ""
	}
	carrier := opentracing.TextMapCarrier{}
	if err := t.Inject(span.Context(), opentracing.HTTPHeaders, carrier); err != nil {
		return ""
	}
	for key, value := range carrier {
		if strings.EqualFold(key, "traceparent") {
			return Checked(value)
		}
	}
	return ""
}

// Checked returns a traceparent as it is, and nothing for what can't be one.
func Checked(parent string) string {
	if len(parent) != ParentLength {
		return ""
	}
	for i := range len(parent) {
		switch c := parent[i]; {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return ""
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return ""
		}
	}
	return parent
}

// Spans are the spans of one step that several traces go through.
type Spans struct {
	tracer opentracing.Tracer
	spans  []opentracing.Span
}

// Continue starts a span of the same name in each of the traces, the first MaxParents of them; those that are none are
// left out.
func Continue(t opentracing.Tracer, operation string, parents []string, tags opentracing.Tags) Spans {
	s := Spans{tracer: t}
	if t == nil {
		return s
	}
	for _, p := range parents[:min(len(parents), MaxParents)] {
		if Checked(p) == "" {
			continue
		}
		parent, err := t.Extract(opentracing.HTTPHeaders, opentracing.TextMapCarrier{"traceparent": p})
		if err != nil {
			continue
		}
		s.spans = append(s.spans, t.StartSpan(operation, opentracing.ChildOf(parent), tags))
	}
	return s
}

// Parents returns what makes later spans the children of these.
func (s Spans) Parents() []string {
	var out []string
	for _, span := range s.spans {
		if p := Parent(s.tracer, span); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// Finish ends all of them.
func (s Spans) Finish() {
	for _, span := range s.spans {
		span.Finish()
	}
}
