package suite

import (
	"regexp"
	"strings"
)

// Result is how a test ended.
type Result string

// What a test can come to. A test that was begun and of which nothing more is heard is Unfinished: the suite hung in it, or
// the test took the suite with it.
const (
	Pass       Result = "pass"
	Fail       Result = "fail"
	Skip       Result = "skip"
	Unfinished Result = "unfinished"
)

// Results are those of a suite's tests, by name.
type Results map[string]Result

// Count says how many tests ended in a certain way.
func (r Results) Count(result Result) int {
	n := 0
	for _, got := range r {
		if got == result {
			n++
		}
	}
	return n
}

var (
	pythonStart  = regexp.MustCompile(`^\w+ \(([\w.]+)\)(?: \.\.\.(?: |$)|$)`)
	pythonEnd    = regexp.MustCompile(`(?:^|\W)(ok|FAIL|ERROR|skipped .*|expected failure|unexpected success)$`)
	pythonFailed = regexp.MustCompile(`^(?:FAIL|ERROR): \w+ \(([\w.]+)\)`)
)

// ParsePython reads what Python's unittest prints with -v. A test writes its name, then perhaps a line of description, then
// how it ended; between the last two there may be whatever else the test has to say. The summary of failures is what counts
// where a test's own output has garbled its line.
func ParsePython(output string) Results {
	results := Results{}
	current := ""
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n ")
		if m := pythonFailed.FindStringSubmatch(line); m != nil {
			results[m[1]] = Fail
			continue
		}
		if m := pythonStart.FindStringSubmatch(line); m != nil {
			current = m[1]
			results[current] = Unfinished
			line = strings.TrimPrefix(line, m[0])
		}
		if current == "" {
			continue
		}
		m := pythonEnd.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		switch {
		case m[1] == "ok", m[1] == "expected failure":
			results[current] = Pass
		case strings.HasPrefix(m[1], "skipped"):
			results[current] = Skip
		default:
			results[current] = Fail
		}
		current = ""
	}
	return results
}

var (
	goStart = regexp.MustCompile(`^\x16?=== RUN +(\S+)$`)
	goEnd   = regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\S+) \(`)
)

// ParseGo reads what a Go test binary prints with -test.v.
func ParseGo(output string) Results {
	results := Results{}
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n ")
		if m := goStart.FindStringSubmatch(line); m != nil {
			results[m[1]] = Unfinished
		}
		if m := goEnd.FindStringSubmatch(line); m != nil {
			results[m[2]] = Result(strings.ToLower(m[1]))
		}
	}
	return results
}
