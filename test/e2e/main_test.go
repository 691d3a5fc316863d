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

// refused checks that curl ended because the connection was refused: at once, and without an answer.
func refused(t *testing.T, what string, r harness.Result) {
	t.Helper()
	const couldNotConnect = 7
	if r.Code != couldNotConnect || !strings.Contains(r.Stderr, "refused") {
		t.Errorf("%s: curl ended with %d, want %d and a refusal\n%s%s", what, r.Code, couldNotConnect, r.Stdout, r.Stderr)
	}
}
