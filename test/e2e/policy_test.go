//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// runLimit bounds what a test waits for.
const runLimit = 60 * time.Second

// wantText is nil if there is text where some is wanted, or none where none is.
func wantText(text string, want bool) error {
	if (text != "") == want {
		return nil
	}
	return errors.New("got " + fmt.Sprintf("%q", text))
}

// serve starts a goserver on port 80 of an address, with labels unless they are empty.
func serve(lab *harness.Lab, ip, id, labels string) *harness.Proc {
	flags := "ax run --ip " + ip
	if labels != "" {
		flags += " --labels " + labels
	}
	return lab.Start(flags+" --", lab.GoProgram("goserver"), "-listen", ":80", "-id", id)
}

// TestLabels is the story of the documentation: two servers on one address, told apart by their labels.
func TestLabels(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "prod", "role=prod")
	serve(lab, "1.1.1.1", "test", "role=test")
	serve(lab, "1.1.1.2", "default", "")
	lab.Serving("1.1.1.1:80", 2)
	lab.Serving("1.1.1.2:80", 1)
	client := lab.GoProgram("goclient")
	for _, role := range []string{"prod", "test"} {
		s := summarize(t, lab.Start("ax run --labels role="+role+" -- "+client, "-url", "http://1.1.1.1/", "-count", "40"))
		if s.Answers[role] != 40 {
			t.Errorf("client with role=%s: %+v, want all 40 answers from the server of that role", role, s)
		}
	}
	const curl = "curl -sS --max-time 10 "
	equal(t, "without the word run", lab.Output("ax --labels role=test "+curl+"http://1.1.1.1/"), "test")
	equal(t, "one label of several is enough", lab.Output("ax run --labels a=b,role=prod -- "+curl+"http://1.1.1.1/"), "prod")
	equal(t, "default labels", lab.Output("ax run -- "+curl+"http://1.1.1.2/"), "default")

	began := time.Now()
	refused(t, lab, "a client with default labels", "ax run --", "http://1.1.1.1/")
	refused(t, lab, "a client with another value", "ax run --labels role=dev --", "http://1.1.1.1/")
	refused(t, lab, "given labels replace the default", "ax run --labels role=prod --", "http://1.1.1.2/")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("three refusals took %v: a denial is told at once", took)
	}
}

// TestBalancing spreads connections over two servers of one address, and over those only that live.
func TestBalancing(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "a", "")
	b := serve(lab, "1.1.1.1", "b", "")
	lab.Serving("1.1.1.1:80", 2)
	client := lab.GoProgram("goclient")
	get := func(count string) summary {
		return summarize(t, lab.Start("ax run -- "+client, "-url", "http://1.1.1.1/", "-count", count))
	}
	// Each is chosen with probability 1/2: fewer than 50 of 200 happens once in 10^13 runs.
	if s := get("200"); s.Failures != 0 || s.Answers["a"] < 50 || s.Answers["b"] < 50 {
		t.Errorf("two servers: %+v", s)
	}
	b.Stop()
	if s := get("50"); s.Answers["a"] != 50 {
		t.Errorf("one of two servers is gone: %+v, want all from the other", s)
	}
	c := serve(lab, "1.1.1.1", "c", "")
	lab.Serving("1.1.1.1:80", 2)
	if s := get("200"); s.Failures != 0 || s.Answers["a"] < 50 || s.Answers["c"] < 50 {
		t.Errorf("a third server came: %+v", s)
	}
	c.Stop()
}

// TestDyingServers: servers are killed under load. What a server had accepted dies with it, as it would natively, but no
// client is ever told that the connection was refused: another server takes it inside the same connect.
func TestDyingServers(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "stays", "")
	lab.Serving("1.1.1.1:80", 1)
	load := lab.Start("ax run -- "+lab.GoProgram("goclient"), "-url", "http://1.1.1.1/", "-workers", "4")
	for range 5 {
		p := serve(lab, "1.1.1.1", "dies", "")
		lab.Serving("1.1.1.1:80", 2)
		p.Signal(syscall.SIGKILL)
		lab.Serving("1.1.1.1:80", 1)
	}
	load.Signal(syscall.SIGTERM)
	s := summarize(t, load)
	if s.Answers["stays"] == 0 || s.Answers["dies"] == 0 || s.Failures > 5*4 {
		t.Errorf("%+v, want answers from both, and at most one failure per worker and death", s)
	}
	for message := range s.Errors {
		if strings.Contains(message, "refused") || strings.Contains(message, "timeout") {
			t.Errorf("a client saw a dead endpoint: %s", message)
		}
	}
}

// TestRoundRobin: a virtual service made through REST takes its backends in turn.
func TestRoundRobin(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "a", "")
	serve(lab, "1.1.1.1", "b", "")
	lab.Serving("1.1.1.1:80", 2)
	const vservice = `{"name":"turns","ip":"1.1.1.9","balancer":"BALANCER_TYPE_ROUND_ROBIN","backends":["1.1.1.1"],
		"ports":[{"virtualPort":8080,"backendPort":80}]}`
	post := lab.Output("curl -sS --max-time 10 -X POST -w %{http_code} -d", vservice, harness.REST+"/v1/vservices")
	if !strings.HasSuffix(post, "200") {
		t.Fatalf("create the virtual service: %s", post)
	}
	lab.Eventually(runLimit, "the virtual service answers", func() error {
		if r := lab.Run("ax run -- curl -sS --max-time 5 http://turns:8080/"); r.Code != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	s := summarize(t, lab.Start("ax run -- "+lab.GoProgram("goclient"), "-url", "http://1.1.1.9:8080/", "-count", "20"))
	if s.Answers["a"] != 10 || s.Answers["b"] != 10 {
		t.Fatalf("%+v, want ten from each", s)
	}
	for i := 1; i < len(s.Order); i++ {
		if s.Order[i] == s.Order[i-1] {
			t.Errorf("answers %v: the same server twice", s.Order)
			break
		}
	}
	lab.Output("curl -sS -f --max-time 10 -X DELETE " + harness.REST + "/v1/vservices/turns")
}
