package selector

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMatches(t *testing.T) {
	labels := map[string]string{"role": "prod", "tier": "front"}
	for text, want := range map[string]bool{
		"":                           true,
		"  ":                         true,
		"role=prod":                  true,
		"role==prod":                 true,
		" role = prod , tier ":       true,
		"role=test":                  false,
		"role!=test":                 true,
		"role!=prod":                 false,
		"zone!=east":                 true,
		"zone=east":                  false,
		"role":                       true,
		"zone":                       false,
		"!zone":                      true,
		"!role":                      false,
		"role=prod,tier=back":        false,
		"role=prod,tier!=back,!zone": true,
		"role in (test, prod),tier":  true,
		"role in (test)":             false,
		"role notin (test,dev)":      true,
		"role notin (prod,dev)":      false,
		"zone notin (east)":          true,
		"zone in (east,west)":        false,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		if got := s.Matches(labels); got != want {
			t.Errorf("%q matches %v: %v, want %v", text, labels, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("k", 64)
	for _, text := range []string{",", "role=prod,", "=", "=v", "k=", "k!=", "!", "!=v", "!k=v", "k=v=w", "k===v", "!!k", "a b", "k=v w", "k in ()", "k in (a", "k in a)", "k of (a)", "k in (a,,b)", "in (a)", "k=(a,b)", "k in (a b)", long, "k=" + long,
		strings.Repeat("k,", MaxTerms) + "k"} {
		if s, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", text, s)
		}
	}
}

// FuzzParse: whatever parses is shown as it was given, and means the same when it is read again.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "k=v", "k!=v,!x", "a,b==c", "!", "k===v"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, labels := range []map[string]string{nil, {"k": "v"}, {"x": "y", "k": "w"}} {
			if s.Matches(labels) != again.Matches(labels) {
				t.Errorf("%q does not match alike", text)
			}
		}
	})
}
