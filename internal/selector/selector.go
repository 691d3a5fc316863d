// Package selector chooses resources by their labels: the value of -l.
//
// Invariant: a selector that parses means one thing, and what can't be meant is an error that shows the form. It is the one
// of policies. Start reading at [ax.ParseSelector].
package selector

import "appswitch.io/internal/ax"

// MaxTerms bounds a selector; an application has at most as many labels.
const MaxTerms = ax.MaxLabels

// Selector is a list of conditions on labels, all of which must hold. The zero Selector matches everything.
type Selector struct {
	text       string
	conditions ax.Selector
}

// Parse reads conditions separated by commas, as [ax.ParseSelector] does.
func Parse(text string) (Selector, error) {
	conditions, err := ax.ParseSelector(text)
	if err != nil {
		return Selector{}, err
	}
	return Selector{text: text, conditions: conditions}, nil
}

// Matches reports whether labels fulfil every condition.
func (s Selector) Matches(labels map[string]string) bool { return s.conditions.Matches(labels) }

// Empty reports whether the selector matches everything.
func (s Selector) Empty() bool { return len(s.conditions) == 0 }

// String returns the selector as it was given. With Set and Type a *Selector is a pflag.Value.
func (s *Selector) String() string { return s.text }

// Set reads a selector.
func (s *Selector) Set(text string) (err error) {
	*s, err = Parse(text)
	return err
}

// Type names the value in a command's help.
func (s *Selector) Type() string { return "selector" }
