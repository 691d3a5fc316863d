//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
	"appswitch.io/test/e2e/suite"
)

const suitesTable = "testdata/suites"

// foreignSuite is a test suite that others wrote.
type foreignSuite struct {
	name  string
	flags []string // further ones of Python's
	part  []string // of the tests, by patterns; all is for FULL=1
	full  bool     // only with FULL=1
	least int      // tests that have to pass natively, or this is not the suite that it should be
	limit time.Duration
}

// TestSuitesPython: the tests of Python's socket modules come to the same natively and under AppSwitch, but for what is in the
// tables of testdata/suites.
func TestSuitesPython(t *testing.T) {
	lab := node(t)
	python := lab.Need("python3")
	if r := lab.Run(python+" -c", "import test.test_socket"); r.Code != 0 {
		t.Fatalf("Python's tests are missing: run scripts/provision.sh test, which `make test` does\n%s", r.Stderr)
	}
	for _, s := range []foreignSuite{
		{name: "test_socket", least: 350, limit: 2 * time.Minute},
		{name: "test_asyncio", part: []string{"*.test_sock_lowlevel.EPoll*", "*.test_server.*", "*.test_sendfile.EPoll*", "*.test_events.EPoll*connection*"},
			least: 35, limit: 8 * time.Minute},
		{name: "test_socketserver", flags: []string{"-u", "network"}, least: 15, limit: time.Minute},
		{name: "test_httplib", least: 100, limit: time.Minute},
		{name: "test_ftplib", least: 90, limit: time.Minute},
		{name: "test_selectors", full: true, least: 70, limit: 2 * time.Minute},
		{name: "test_ssl", full: true, least: 160, limit: 2 * time.Minute},
	} {
		if s.full && !full() {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			lab := lab.In(t)
			table := s.table(t)
			args := append([]string{python, "-m", "test", "-v"}, s.flags...)
			for _, pattern := range suite.LeftOut(table) {
				args = append(args, "-i", pattern)
			}
			if !full() {
				for _, pattern := range s.part {
					args = append(args, "-m", pattern)
				}
			}
			s.compare(t, lab, "", append(args, s.name), table, suite.ParsePython)
		})
	}
}

// TestSuitesGo: those of Go's packages net and net/http.
func TestSuitesGo(t *testing.T) {
	lab := node(t)
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src")
	for _, s := range []foreignSuite{
		{name: "net", least: 250, limit: 3 * time.Minute},
		{name: "net/http", least: 1000, limit: 3 * time.Minute},
	} {
		t.Run(s.name, func(t *testing.T) {
			lab := lab.In(t)
			table := s.table(t)
			program := lab.Path(s.file() + ".test")
			if out, err := exec.Command("go", "test", "-c", "-o", program, s.name).CombinedOutput(); err != nil {
				t.Fatalf("go test -c %s: %v\n%s", s.name, err, out)
			}
			args := []string{program, "-test.v", "-test.timeout=" + s.limit.String()}
			if !full() {
				args = append(args, "-test.short")
			}
			if left := suite.LeftOut(table); len(left) > 0 {
				args = append(args, "-test.skip=^("+strings.ReplaceAll(strings.Join(left, "|"), "*", ".*")+")$")
			}
			s.compare(t, lab, filepath.Join(source, s.name), args, table, suite.ParseGo)
		})
	}
}

// full says whether everything is to be run: minutes for each suite.
func full() bool { return os.Getenv("E2E_FULL") != "" }

func (s foreignSuite) file() string { return strings.ReplaceAll(s.name, "/", "_") }

// table reads what is known of the suite.
func (s foreignSuite) table(t *testing.T) []suite.Entry {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(suitesTable, s.file()+".txt"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	table, err := suite.ParseTable(string(text))
	if err != nil {
		t.Fatalf("the table of %s: %v", s.name, err)
	}
	return table
}

// compare runs the suite in a network namespace of its own, which has the application's address, and under AppSwitch at the
// same time, and reports what differs.
func (s foreignSuite) compare(t *testing.T, lab *harness.Lab, dir string, args []string, table []suite.Entry, parse func(string) suite.Results) {
	t.Helper()
	const alone = `ip link set lo up && ip addr add 2.2.2.2/32 dev lo && exec "$@"`
	native := lab.StartCmd(harness.Cmd{Args: append([]string{"unshare", "-n", "sh", "-c", alone, "sh"}, args...), Dir: dir})
	under := lab.StartCmd(harness.Cmd{Args: append(strings.Fields("ax run --ip 2.2.2.2 --"), args...), Dir: dir})
	results := func(p *harness.Proc) (suite.Results, string) {
		t.Helper()
		r := p.Wait(s.limit)
		return parse(r.Stdout + "\n" + r.Stderr), r.Stdout + r.Stderr
	}
	want, _ := results(native)
	got, said := results(under)
	if n := want.Count(suite.Pass); n < s.least {
		t.Errorf("%d tests pass natively, want %d or more", n, s.least)
	}
	t.Logf("natively %d tests pass, under ax run %d", want.Count(suite.Pass), got.Count(suite.Pass))
	if wrong := suite.Compare(want, got, table, full() || len(s.part) == 0); len(wrong) > 0 {
		t.Errorf("%s:\n%s\n--- the end of what it said under ax run:\n%s", s.name, strings.Join(wrong, "\n"), said[max(0, len(said)-8000):])
	}
}
