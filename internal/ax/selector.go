package ax

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxSelectorLength is how many bytes the text of a selector has at most.
const MaxSelectorLength = 4096

// SelectorOp is what a condition asks of a label.
type SelectorOp uint8

// The operators.
const (
	SelectIn     SelectorOp = 1 // the label has one of the values
	SelectNotIn  SelectorOp = 2 // it has another one, or is missing
	SelectExists SelectorOp = 3 // it is there, whatever its value
	SelectAbsent SelectorOp = 4 // it is not there
)

// Condition is one condition on a set of labels.
type Condition struct {
	Key    string
	Op     SelectorOp
	Values []string // of SelectIn and SelectNotIn, at least one
}

func (c *Condition) matches(l Labels) bool {
	value, ok := l[c.Key]
	switch c.Op {
	case SelectIn:
		return ok && slices.Contains(c.Values, value)
	case SelectNotIn:
		return !ok || !slices.Contains(c.Values, value)
	case SelectExists:
		return ok
	}
	return !ok
}

// String returns the condition as ParseSelector reads it.
func (c Condition) String() string {
	one := ""
	if len(c.Values) == 1 {
		one = c.Values[0]
	}
	switch {
	case c.Op == SelectIn && one != "":
		return c.Key + "=" + one
	case c.Op == SelectIn:
		return c.Key + " in (" + strings.Join(c.Values, ",") + ")"
	case c.Op == SelectNotIn && one != "":
		return c.Key + "!=" + one
	case c.Op == SelectNotIn:
		return c.Key + " notin (" + strings.Join(c.Values, ",") + ")"
	case c.Op == SelectAbsent:
		return "!" + c.Key
	}
	return c.Key
}

// Selector is a list of conditions on labels, all of which must hold. The empty Selector matches everything.
type Selector []Condition

// Selector returns the selector of what carries all of the labels.
func (l Labels) Selector() Selector {
	s := make(Selector, 0, len(l))
	for key, value := range l {
		s = append(s, Condition{Key: key, Op: SelectIn, Values: []string{value}})
	}
	return s.canonical()
}

// ParseSelector reads conditions separated by commas: k=v (or k==v), k!=v, k in (v,w), k notin (v,w), k, !k. Blanks around
// words are dropped; the empty text matches everything. As in other tools k!=v also matches what has no label k.
func ParseSelector(text string) (Selector, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if len(text) > MaxSelectorLength {
		return nil, fmt.Errorf("selector: %d bytes: at most %d", len(text), MaxSelectorLength)
	}
	var s Selector
	for _, part := range splitConditions(text) {
		c, err := parseCondition(part)
		if err != nil {
			return nil, fmt.Errorf("selector %q: %w", part, err)
		}
		if s = append(s, c); len(s) > MaxLabels {
			return nil, fmt.Errorf("selector: more than %d conditions", MaxLabels)
		}
	}
	return s, nil
}

// splitConditions splits at the commas that are not within parentheses.
func splitConditions(text string) (parts []string) {
	depth, start := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth <= 0:
			parts = append(parts, strings.TrimSpace(text[start:i]))
			start = i + 1
		}
	}
	return append(parts, strings.TrimSpace(text[start:]))
}

func parseCondition(text string) (Condition, error) {
	c := setCondition(text)
	if c.Op == 0 {
		c = plainCondition(text)
	}
	bad := errors.New("want k=v, k!=v, k or !k, k in (v,w) or k notin (v,w), several separated by commas")
	if c.Key == "" || strings.ContainsAny(c.Key, "!=() \t") {
		return c, bad
	}
	for _, v := range c.Values {
		if v == "" || strings.ContainsAny(v, "=() \t") {
			return c, bad
		}
	}
	for _, part := range append([]string{c.Key}, c.Values...) {
		if len(part) > MaxLabelLength {
			return c, fmt.Errorf("a label's key and value have at most %d bytes", MaxLabelLength)
		}
	}
	return c, nil
}

// setCondition reads "k in (v,w)" and "k notin (v,w)"; Op is 0 if the text is neither.
func setCondition(text string) Condition {
	before, list, ok := strings.Cut(text, "(")
	list, closed := strings.CutSuffix(list, ")")
	words := strings.Fields(before)
	if !ok || !closed || len(words) != 2 {
		return Condition{}
	}
	c := Condition{Key: words[0]}
	switch words[1] {
	case "in":
		c.Op = SelectIn
	case "notin":
		c.Op = SelectNotIn
	}
	for v := range strings.SplitSeq(list, ",") {
		c.Values = append(c.Values, strings.TrimSpace(v))
	}
	slices.Sort(c.Values)
	c.Values = slices.Compact(c.Values)
	return c
}

func plainCondition(text string) Condition {
	before, after, valued := strings.Cut(text, "=")
	c := Condition{Key: before, Op: SelectIn}
	switch {
	case valued && strings.HasSuffix(before, "!"):
		c.Key, c.Op = strings.TrimSuffix(before, "!"), SelectNotIn
	case valued:
		after = strings.TrimPrefix(after, "=")
	case strings.HasPrefix(text, "!"):
		c.Key, c.Op = text[1:], SelectAbsent
	default:
		c.Op = SelectExists
	}
	if valued {
		c.Values = []string{strings.TrimSpace(after)}
	}
	c.Key = strings.TrimSpace(c.Key)
	return c
}

// Matches reports whether labels fulfil every condition.
func (s Selector) Matches(l Labels) bool {
	for i := range s {
		if !s[i].matches(l) {
			return false
		}
	}
	return true
}

// String returns the selector as ParseSelector reads it.
func (s Selector) String() string {
	parts := make([]string, len(s))
	for i, c := range s {
		parts[i] = c.String()
	}
	return strings.Join(parts, ",")
}

// Validate reports what makes a selector unusable, or one that no labels can fulfil.
func (s Selector) Validate() error {
	if len(s) > MaxLabels {
		return fmt.Errorf("%d conditions: at most %d", len(s), MaxLabels)
	}
	if n := len(s.String()); n > MaxSelectorLength {
		return fmt.Errorf("%d bytes: at most %d", n, MaxSelectorLength)
	}
	exact := Labels{}
	for _, c := range s {
		for _, part := range append([]string{c.Key}, c.Values...) {
			if err := validateLabelPart(part); err != nil {
				return fmt.Errorf("label %q: %w", c.String(), err)
			}
		}
		if c.Op != SelectIn || len(c.Values) != 1 {
			continue
		}
		if other, twice := exact[c.Key]; twice && other != c.Values[0] {
			return fmt.Errorf("label %q can't be %q and %q: use %s in (%s,%s) if either will do", c.Key, other, c.Values[0], c.Key, other, c.Values[0])
		}
		exact[c.Key] = c.Values[0]
	}
	return nil
}

// Split returns the labels that must be carried as they are, and the conditions beside them.
func (s Selector) Split() (exact Labels, rest Selector) {
	for _, c := range s {
		if _, twice := exact[c.Key]; c.Op != SelectIn || len(c.Values) != 1 || twice {
			rest = append(rest, c)
			continue
		}
		if exact == nil {
			exact = Labels{}
		}
		exact[c.Key] = c.Values[0]
	}
	return exact, rest
}

// canonical returns the selector in the one order in which it is compared and stored.
func (s Selector) canonical() Selector {
	s = slices.Clone(s)
	for i, c := range s {
		s[i].Values = slices.Compact(slices.Sorted(slices.Values(c.Values)))
	}
	compare := func(a, b Condition) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Op, b.Op), slices.Compare(a.Values, b.Values))
	}
	slices.SortFunc(s, compare)
	s = slices.CompactFunc(s, func(a, b Condition) bool { return compare(a, b) == 0 })
	if len(s) == 0 {
		return nil
	}
	return s
}
