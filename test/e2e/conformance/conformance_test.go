package conformance

import (
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	native := []string{
		"bind: twice = -1 EINVAL, at once",
		"bind: twice = 0, at once",
		"bind: name: 127.0.0.1:P1",
	}
	for _, c := range []struct {
		what    string
		managed []string
		table   []Difference
		want    []string
	}{
		{"the same", native, nil, nil},
		{"the second of a name", []string{native[0], "bind: twice = 0, waits", native[2]}, nil, []string{
			"bind: twice\n    native    0, at once\n    AppSwitch 0, waits",
		}},
		{"in the table", []string{native[0], "bind: twice = 0, waits", native[2]}, []Difference{{`bind: tw.*`, "why"}}, nil},
		{"a line that is missing, one more", []string{native[0], native[1], "bind: hangs"}, nil, []string{
			"bind: name\n    native    127.0.0.1:P1\n    AppSwitch (no such line)",
			"bind: hangs\n    native    (no such line)\n    AppSwitch bind: hangs",
		}},
		{"an entry for nothing", native, []Difference{{`bind: twice`, "why"}}, []string{"no difference any more: bind: twice (why)"}},
		{"only a part of a step", []string{native[0], native[1], "bind: name: ::"}, []Difference{{`bind: na`, "why"}}, []string{
			"bind: name\n    native    127.0.0.1:P1\n    AppSwitch ::",
			"no difference any more: bind: na (why)",
		}},
	} {
		if got := Compare(native, c.managed, c.table); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
