//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

const (
	conformanceIP = "10.9.8.7"
	// blackhole is where programs/conformance expects silence (BLACKHOLE): lo takes what is sent there, and drops it.
	blackhole = "203.0.113.9/32"
	// conformanceLimit bounds one run.
	conformanceLimit = 2 * time.Minute
	// native gives a program a network namespace with the same addresses as an application's, without AppSwitch.
	native = "ip link set lo up && ip addr add " + conformanceIP + "/32 dev lo && ip route add " + blackhole + ` dev lo && exec "$@"`
)

// TestConformance: socket calls in every state, with good and bad arguments, give under AppSwitch what they give without:
// results, errors, addresses, and whether they wait. What may differ is in the table (conformance_table_test.go), and has to.
func TestConformance(t *testing.T) {
	lab := node(t)
	lab.Output("ip route add " + blackhole + " dev lo")
	for _, c := range []struct {
		name        string
		program     string
		differences []difference
	}{
		{"C", lab.CProgram("conformance"), differences},
		{"Go", lab.GoProgram("goconformance"), goDifferences},
	} {
		t.Run(c.name, func(t *testing.T) {
			lab := lab.In(t)
			want := conformance(t, lab, []string{"unshare", "-n", "sh", "-c", native, "sh", c.program, conformanceIP})
			got := conformance(t, lab, []string{"ax", "run", "--ip", conformanceIP, "--", c.program, conformanceIP})
			compare(t, want, got, c.differences)
		})
	}
}

func conformance(t *testing.T, lab *harness.Lab, args []string) []string {
	t.Helper()
	r := lab.StartCmd(harness.Cmd{Args: args}).Wait(conformanceLimit)
	if r.Code != 0 {
		t.Fatalf("%s: exit status %d\n%s", strings.Join(args, " "), r.Code, r.Stderr)
	}
	lines := harness.Lines(r.Stdout)
	if len(lines) == 0 {
		t.Fatalf("%s: no output", strings.Join(args, " "))
	}
	return lines
}

// difference is one between native lines and those under AppSwitch. A line is "case: step = result"; step may be followed by
// a colon instead.
type difference struct {
	step   string // regular expression for "case: step", whole
	reason string
}

// compare looks at each line of both runs, in the order of the native one.
func compare(t *testing.T, want, got []string, differences []difference) {
	t.Helper()
	native, _ := byStep(want)
	managed, order := byStep(got)
	_, steps := byStep(want)
	for _, s := range order {
		if _, ok := native[s]; !ok {
			steps = append(steps, s)
		}
	}
	used := make([]bool, len(differences))
	patterns := make([]*regexp.Regexp, len(differences))
	for i, d := range differences {
		patterns[i] = regexp.MustCompile("^(?:" + d.step + ")$")
	}
	var report []string
	for _, s := range steps {
		if native[s] == managed[s] {
			continue
		}
		name, _, _ := strings.Cut(s, "#")
		i := slices.IndexFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
		if i >= 0 {
			used[i] = true
			continue
		}
		report = append(report, fmt.Sprintf("  %s\n      native    %s\n      AppSwitch %s", name, or(native[s]), or(managed[s])))
	}
	if len(report) > 0 {
		t.Errorf("%d lines of %d differ:\n%s", len(report), len(steps), strings.Join(report, "\n"))
	}
	for i, d := range differences {
		if !used[i] {
			t.Errorf("no difference any more: %s (%s)", d.step, d.reason)
		}
	}
}

func or(line string) string {
	if line == "" {
		return "(no such line)"
	}
	return line
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
