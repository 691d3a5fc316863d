package text_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

var samples = []string{"", "a", ":", "::", "a:b", ":a", "a:", "a:b:c", " a : b ", "\t\n", "=", "k=v=w"}

// TestLikeStrings holds the functions against those of package strings.
func TestLikeStrings(t *testing.T) {
	for _, s := range samples {
		for _, b := range []byte{':', '=', ' '} {
			sep := string(b)
			if got, want := text.Index(s, b), strings.IndexByte(s, b); got != want {
				t.Errorf("Index(%q, %q) = %d, want %d", s, sep, got, want)
			}
			if got, want := text.Split(s, b), strings.Split(s, sep); !slices.Equal(got, want) {
				t.Errorf("Split(%q, %q) = %q, want %q", s, sep, got, want)
			}
			before, after, found := text.Cut(s, b)
			wantBefore, wantAfter, wantFound := strings.Cut(s, sep)
			if before != wantBefore || after != wantAfter || found != wantFound || text.Contains(s, b) != found {
				t.Errorf("Cut(%q, %q) = %q, %q, %v", s, sep, before, after, found)
			}
		}
		if got, want := text.Trim(s), strings.TrimSpace(s); got != want {
			t.Errorf("Trim(%q) = %q, want %q", s, got, want)
		}
		for _, prefix := range samples {
			if got, want := text.HasPrefix(s, prefix), strings.HasPrefix(s, prefix); got != want {
				t.Errorf("HasPrefix(%q, %q) = %v, want %v", s, prefix, got, want)
			}
		}
	}
	if got, want := text.Join(samples...), strings.Join(samples, ""); got != want {
		t.Errorf("Join = %q, want %q", got, want)
	}
}

func TestErrors(t *testing.T) {
	if err := text.Wrap(io.EOF, "read ", "x"); err.Error() != "read x: EOF" || !errors.Is(err, io.EOF) {
		t.Errorf("Wrap: %v", err)
	}
	if err := text.Because(io.EOF, "it ", "ended"); err.Error() != "it ended" || !errors.Is(err, io.EOF) {
		t.Errorf("Because: %v", err)
	}
	if err := text.Error("a", "b"); err.Error() != "ab" {
		t.Errorf("Error: %v", err)
	}
}
