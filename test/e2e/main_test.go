//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// node returns a laboratory whose daemon is ready.
func node(t *testing.T) *harness.Lab {
	t.Helper()
	lab := harness.New(t)
	lab.StartDaemon()
	return lab
}

// summary is what programs/goclient prints.
type summary struct {
	Requests   int            `json:"requests"`
	Failures   int            `json:"failures"`
	Answers    map[string]int `json:"answers"`
	Order      []string       `json:"order"`
	Errors     map[string]int `json:"errors"`
	SlowestMS  int64          `json:"slowestMs"`
	LongestGap int64          `json:"longestGap"`
}

// summarize waits for a goclient to end and reads what it printed.
func summarize(t *testing.T, p *harness.Proc) summary {
	t.Helper()
	r := p.Wait(3 * time.Minute)
	var s summary
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		t.Fatalf("%s: exit status %d, no summary: %v\n%s%s", p, r.Code, err, r.Stdout, r.Stderr)
	}
	return s
}

// equal compares what a program printed with what it should have printed.
func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// contains looks for text in what a program printed.
func contains(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: got %q, want it to contain %q", what, got, want)
	}
}

// refused checks that a curl is told at once that the connection is refused. It starts with what line says: `ax run --`
// and the like, or nothing for a curl outside AppSwitch.
func refused(t *testing.T, lab *harness.Lab, what, line, url string) {
	t.Helper()
	const couldNotConnect = 7
	r := lab.Run(line + " curl -v -sS --max-time 10 " + url) // only -v says why
	if r.Code != couldNotConnect || !strings.Contains(r.Stderr, "Connection refused") {
		t.Errorf("%s: curl ended with %d, want %d and a refusal\n%s%s", what, r.Code, couldNotConnect, r.Stdout, r.Stderr)
	}
}
