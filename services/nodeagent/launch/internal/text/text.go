// Package text has the few functions on strings and errors that the launcher needs.
//
// Packages strings, fmt, os and what they import are initialised late, after packages of etcd and gRPC; see
// launch/early. Invariant: whatever this package imports is initialised in the first millisecond.
package text

import "errors"

// Index returns where b first occurs in s, or -1.
func Index(s string, b byte) int {
	for i := range len(s) {
		if s[i] == b {
			return i
		}
	}
	return -1
}

// Contains reports whether b occurs in s.
func Contains(s string, b byte) bool { return Index(s, b) >= 0 }

// Cut splits s around the first b.
func Cut(s string, b byte) (before, after string, found bool) {
	if i := Index(s, b); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// Split returns the parts of s between the separators; one more than there are separators.
func Split(s string, separator byte) []string {
	var parts []string
	for {
		part, rest, found := Cut(s, separator)
		parts = append(parts, part)
		if !found {
			return parts
		}
		s = rest
	}
}

// HasPrefix reports whether s begins with prefix.
func HasPrefix(s, prefix string) bool { return len(s) >= len(prefix) && s[:len(prefix)] == prefix }

// Trim takes blanks off both ends.
func Trim(s string) string {
	blank := func(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }
	for s != "" && blank(s[0]) {
		s = s[1:]
	}
	for s != "" && blank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// Join concatenates its arguments.
func Join(parts ...string) string {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return string(b)
}

// Error makes an error of its arguments' concatenation.
func Error(parts ...string) error { return errors.New(Join(parts...)) }

// Wrap puts a description before an error, as fmt.Errorf does with "description: %w".
func Wrap(err error, description ...string) error {
	return &wrapped{Join(description...) + ": " + err.Error(), err}
}

// Because puts a complete text in front of what errors.Is and errors.As see.
func Because(err error, whole ...string) error { return &wrapped{Join(whole...), err} }

type wrapped struct {
	text string
	err  error
}

func (w *wrapped) Error() string { return w.text }
func (w *wrapped) Unwrap() error { return w.err }
