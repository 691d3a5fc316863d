//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
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
	native = `ip link set lo up && ip addr add "$0/32" dev lo && ip route add ` + blackhole + ` dev lo && exec "$@"`
)

// natively and managed are the command lines of a conformance program, which gets the machine's address first.
func natively(ip string, program ...string) []string {
	return append([]string{"unshare", "-n", "sh", "-c", native, ip}, with(ip, program)...)
}

func managed(ip string, program ...string) []string {
	return append([]string{"ax", "run", "--ip", ip, "--"}, with(ip, program)...)
}

func with(ip string, program []string) []string {
	return append([]string{program[0], ip}, program[1:]...)
}

// TestConformance: socket calls in every state, with good and bad arguments, give under AppSwitch what they give without:
// results, errors, addresses, and whether they wait. What may differ is in the table (conformance_table_test.go), and has to.
func TestConformance(t *testing.T) {
	lab := node(t)
	lab.Output("ip route add " + blackhole + " dev lo")
	program := lab.CProgram("conformance")
	for _, c := range []struct {
		name        string
		program     string
		differences []difference
	}{
		{"C", program, differences},
		{"Go", lab.GoProgram("goconformance"), goDifferences},
	} {
		t.Run(c.name, func(t *testing.T) {
			lab := lab.In(t)
			// Both at a time: they wait more than they work.
			want := lab.StartCmd(harness.Cmd{Args: natively(conformanceIP, c.program)})
			got := lab.StartCmd(harness.Cmd{Args: managed(conformanceIP, c.program)})
			compare(t, printed(t, want), printed(t, got), c.differences)
		})
	}
	t.Run("passed", func(t *testing.T) {
		lab := lab.In(t)
		compare(t, passed(t, lab, program, natively), passed(t, lab, program, managed), passedDifferences)
	})
}

// passed has one machine, or application, take over sockets of another one, and returns what it finds.
func passed(t *testing.T, lab *harness.Lab, program string, as func(ip string, program ...string) []string) []string {
	t.Helper()
	const takerIP = "10.9.8.8"
	path := filepath.Join(t.TempDir(), "sockets")
	giver := lab.StartCmd(harness.Cmd{Args: as(conformanceIP, program, "--give", path)})
	taker := lab.StartCmd(harness.Cmd{Args: as(takerIP, program, "--take", path, conformanceIP)})
	if r := giver.Wait(conformanceLimit); r.Code != 0 {
		t.Fatalf("who gives the sockets: exit status %d\n%s", r.Code, r.Stderr)
	}
	return printed(t, taker)
}

// printed waits for a conformance program and returns its lines.
func printed(t *testing.T, p *harness.Proc) []string {
	t.Helper()
	r := p.Wait(conformanceLimit)
	lines := harness.Lines(r.Stdout)
	if r.Code != 0 || len(lines) == 0 {
		t.Fatalf("%s: exit status %d, %d lines\n%s", p, r.Code, len(lines), r.Stderr)
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
