// Package selector chooses resources by their labels: the value of -l.
//
// Invariant: a selector that parses means one thing, and what can't be meant is an error that shows the form.
// Start reading at [Parse].
package selector

import (
	"errors"
	"fmt"
	"strings"

	"appswitch.io/internal/ax"
)

// MaxTerms bounds a selector; an application has at most as many labels.
const MaxTerms = ax.MaxLabels

// op is what a term asks of a label.
type op uint8

const (
	equal   op = iota // the label has the value
	unequal           // it has another one, or is missing
	exists            // it is there
	absent            // it is not
)

// term is one condition.
type term struct {
	key, value string
	op         op
}

func (t term) matches(labels map[string]string) bool {
	value, ok := labels[t.key]
	switch t.op {
	case equal:
		return ok && value == t.value
	case unequal:
		return !ok || value != t.value
	case exists:
		return ok
	}
	return !ok
}

// Selector is a list of conditions on labels, all of which must hold. The zero Selector matches everything.
type Selector struct {
	text  string
	terms []term
}

// Parse reads conditions separated by commas: k=v (or k==v), k!=v, k, !k. Blanks around words are dropped; the empty
// text matches everything. As in other tools k!=v also matches what has no label k.
func Parse(text string) (Selector, error) {
	s := Selector{text: text}
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		t, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return Selector{}, fmt.Errorf("selector %q: %w", strings.TrimSpace(part), err)
		}
		if s.terms = append(s.terms, t); len(s.terms) > MaxTerms {
			return Selector{}, fmt.Errorf("selector: more than %d conditions", MaxTerms)
		}
	}
	return s, nil
}

func parseTerm(text string) (term, error) {
	before, after, valued := strings.Cut(text, "=")
	t := term{key: before, value: strings.TrimPrefix(after, "="), op: equal}
	switch {
	case valued && strings.HasSuffix(before, "!"):
		t.key, t.value, t.op = strings.TrimSuffix(before, "!"), after, unequal
	case !valued && strings.HasPrefix(text, "!"):
		t.key, t.op = text[1:], absent
	case !valued:
		t.op = exists
	}
	t.key, t.value = strings.TrimSpace(t.key), strings.TrimSpace(t.value)
	switch {
	case t.key == "" || valued && t.value == "" || strings.ContainsAny(t.key, "!= \t") || strings.ContainsAny(t.value, "= \t"):
		return t, errors.New("want k=v, k!=v, k or !k, several separated by commas")
	case len(t.key) > ax.MaxLabelLength || len(t.value) > ax.MaxLabelLength:
		return t, fmt.Errorf("a label's key and value have at most %d bytes", ax.MaxLabelLength)
	}
	return t, nil
}

// Matches reports whether labels fulfil every condition.
func (s Selector) Matches(labels map[string]string) bool {
	for _, t := range s.terms {
		if !t.matches(labels) {
			return false
		}
	}
	return true
}

// Empty reports whether the selector matches everything.
func (s Selector) Empty() bool { return len(s.terms) == 0 }

// String returns the selector as it was given. With Set and Type a *Selector is a pflag.Value.
func (s *Selector) String() string { return s.text }

// Set reads a selector.
func (s *Selector) Set(text string) (err error) {
	*s, err = Parse(text)
	return err
}

// Type names the value in a command's help.
func (s *Selector) Type() string { return "selector" }
