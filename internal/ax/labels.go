package ax

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits of a label set.
const (
	MaxLabels      = 64 // labels of one application
	MaxLabelLength = 63 // bytes of a key, and of a value
)

// Labels are the key=value pairs that identify what an application is, for access control and selection.
type Labels map[string]string

// DefaultLabels are the labels of an application that was given none.
func DefaultLabels() Labels { return Labels{"zone": "default"} }

// ParseLabels reads a comma-separated list such as "role=prod,tier=web". Blanks around a pair are dropped.
// An empty list is an error, and so is a key given twice.
func ParseLabels(csv string) (Labels, error) {
	l := Labels{}
	for pair := range strings.SplitSeq(csv, ",") {
		pair = strings.TrimSpace(pair)
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("label %q: want key=value, such as role=prod", pair)
		}
		if _, twice := l[key]; twice {
			return nil, fmt.Errorf("label %q: key %q is given twice", pair, key)
		}
		l[key] = value
	}
	return l, l.Validate()
}

// Validate reports the first label that breaks a limit.
func (l Labels) Validate() error {
	if len(l) > MaxLabels {
		return fmt.Errorf("%d labels: at most %d", len(l), MaxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(l)) {
		for _, part := range []string{key, l[key]} {
			if err := validateLabelPart(part); err != nil {
				return fmt.Errorf("label %q: %w", key+"="+l[key], err)
			}
		}
	}
	return nil
}

func validateLabelPart(s string) error {
	switch {
	case s == "":
		return errors.New("key and value must not be empty")
	case len(s) > MaxLabelLength:
		return fmt.Errorf("key and value have at most %d bytes", MaxLabelLength)
	case strings.ContainsAny(s, ",=\n\r\t"):
		return errors.New("key and value must not contain ',', '=' or control characters")
	}
	return nil
}

// Shares reports whether l and other have at least one label=value in common: the rule by which a client may reach
// a server when no policy says otherwise.
func (l Labels) Shares(other Labels) bool {
	if len(other) < len(l) {
		l, other = other, l
	}
	for key, value := range l {
		if v, ok := other[key]; ok && v == value {
			return true
		}
	}
	return false
}

// Contains reports whether l carries every label of selector; the empty selector is always contained.
func (l Labels) Contains(selector Labels) bool {
	for key, value := range selector {
		if v, ok := l[key]; !ok || v != value {
			return false
		}
	}
	return true
}

// String lists the labels by key, as --labels takes them.
func (l Labels) String() string {
	pairs := make([]string, 0, len(l))
	for _, key := range slices.Sorted(maps.Keys(l)) {
		pairs = append(pairs, key+"="+l[key])
	}
	return strings.Join(pairs, ",")
}
