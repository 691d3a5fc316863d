package suite

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Entry is a line of a suite's table: what is known of some of its tests.
type Entry struct {
	Pattern string // of the tests' names, as in path.Match but for slashes, which are like other characters
	LeftOut bool   // the tests aren't run at all, in either place
	Reason  string
}

// ParseTable reads a table. A line is `differs PATTERN REASON` or `left-out PATTERN REASON`; # begins a comment.
func ParseTable(text string) ([]Entry, error) {
	var table []Entry
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		verdict, rest, _ := strings.Cut(line, " ")
		pattern, reason, _ := strings.Cut(strings.TrimSpace(rest), " ")
		e := Entry{Pattern: pattern, LeftOut: verdict == "left-out", Reason: strings.TrimSpace(reason)}
		if verdict != "differs" && !e.LeftOut || e.Reason == "" {
			return nil, fmt.Errorf("line %q: want differs or left-out, a pattern, and a reason", line)
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		table = append(table, e)
	}
	return table, nil
}

// LeftOut returns the patterns of the tests that aren't to be run.
func LeftOut(table []Entry) []string {
	var out []string
	for _, e := range table {
		if e.LeftOut {
			out = append(out, e.Pattern)
		}
	}
	return out
}

// matches is path.Match with slashes as characters like others: a pattern for a Go test is one for its subtests, too.
func (e Entry) matches(test string) bool {
	flat := strings.NewReplacer("/", ".")
	ok, _ := path.Match(flat.Replace(e.Pattern), flat.Replace(test)) // the pattern was checked by ParseTable
	return ok
}

// Compare returns what is wrong: every test that passes natively, doesn't pass under AppSwitch and isn't in the table, and
// every entry of the table for a test that passes in both. If all of the suite was run, so is an entry without a test that differs.
func Compare(native, under Results, table []Entry, all bool) []string {
	var wrong []string
	used := make([]bool, len(table))
	for test, want := range native {
		i := slices.IndexFunc(table, func(e Entry) bool { return e.matches(test) })
		got, ok := under[test]
		if !ok {
			got = "not run"
		}
		switch {
		case i >= 0 && table[i].LeftOut:
			wrong = append(wrong, fmt.Sprintf("%s was run, and should have been left out", test))
		case want != Pass: // what it comes to says nothing
		case i >= 0 && got == Pass:
			wrong = append(wrong, fmt.Sprintf("%s no longer differs: take it out of the table", test))
		case i >= 0:
			used[i] = true
		case got != Pass:
			wrong = append(wrong, fmt.Sprintf("%s passes natively; under ax run: %s", test, got))
		}
	}
	for i, e := range table {
		if all && !used[i] && !e.LeftOut {
			wrong = append(wrong, fmt.Sprintf("no test differs that is like %s: take it out of the table", e.Pattern))
		}
	}
	slices.Sort(wrong)
	return wrong
}
