//go:build e2e

package e2e

import (
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"appswitch.io/test/e2e/conformance"
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
	table := differences
	if runtime.GOARCH == "amd64" {
		table = slices.Concat(differences, foreignDifferences)
	}
	for _, c := range []struct {
		name        string
		program     string
		differences []conformance.Difference
	}{
		{"C", program, table},
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

func compare(t *testing.T, want, got []string, differences []conformance.Difference) {
	t.Helper()
	for _, finding := range conformance.Compare(want, got, differences) {
		t.Error(finding)
	}
}
