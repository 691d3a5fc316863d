// Package conformance compares what a program printed in two runs, natively and under AppSwitch, step by step.
//
// Its invariant: a step that differs is either in the table of differences or a finding, and so is an entry of the table
// where nothing differs. Start reading at [Compare].
package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Difference is one that has a reason.
type Difference struct {
	Step   string // regular expression for all of "case: step"
	Reason string
}

// Compare looks at the lines of both runs, in the order of the native ones, and returns what it finds. A line is
// "case: step = result" or "case: step: result"; any other is a step by itself.
func Compare(native, managed []string, table []Difference) (findings []string) {
	want, steps := byStep(native)
	got, order := byStep(managed)
	for _, s := range order {
		if _, ok := want[s]; !ok {
			steps = append(steps, s)
		}
	}
	used := make([]bool, len(table))
	patterns := make([]*regexp.Regexp, len(table))
	for i, d := range table {
		patterns[i] = regexp.MustCompile("^(?:" + d.Step + ")$")
	}
	for _, s := range steps {
		if want[s] == got[s] {
			continue
		}
		name, _, _ := strings.Cut(s, "#")
		i := slices.IndexFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
		if i >= 0 {
			used[i] = true
			continue
		}
		findings = append(findings, fmt.Sprintf("%s\n    native    %s\n    AppSwitch %s", name, orNone(want[s]), orNone(got[s])))
	}
	for i, d := range table {
		if !used[i] {
			findings = append(findings, fmt.Sprintf("no difference any more: %s (%s)", d.Step, d.Reason))
		}
	}
	return findings
}

func orNone(result string) string {
	if result == "" {
		return "(no such line)"
	}
	return result
}

var stepEnd = regexp.MustCompile(`^[^:]*: [^:=]*?(?: = |: )`)

// byStep splits lines into what was done and what it gave. Steps of the same name are numbered.
func byStep(lines []string) (results map[string]string, order []string) {
	results = map[string]string{}
	count := map[string]int{}
	for _, line := range lines {
		step, result := line, line
		if end := stepEnd.FindStringIndex(line); end != nil {
			step, result = strings.TrimRight(line[:end[1]], " =:"), line[end[1]:]
		}
		count[step]++
		key := fmt.Sprintf("%s#%d", step, count[step])
		results[key] = result
		order = append(order, key)
	}
	return results, order
}
