//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// fickle starts a server on port 80 of an address that can be made ill.
func fickle(lab *harness.Lab, ip, id, flags string) *harness.Proc {
	return lab.Start("ax run --ip "+ip+" "+flags+" --", lab.Need("python3"), lab.Program("fickle.py"), "80", id)
}

// shares makes so many connects to an address and returns the servers that answered, and how often. None may fail.
func shares(t *testing.T, lab *harness.Lab, url, count string) map[string]int {
	t.Helper()
	s := summarize(t, lab.Start("ax run -- "+lab.GoProgram("goclient"), "-url", url, "-count", count, "-keepalive=false"))
	if s.Failures != 0 {
		t.Errorf("%s: %+v", url, s)
	}
	return s.Answers
}

// candidate is a server as `ax explain` shows it.
type candidate struct {
	Endpoint struct {
		AppID        string
		EjectedUntil string
		Draining     bool
		Health       struct{ State, Reason string }
	}
	Eligible bool
	Reason   string
}

// explain returns the verdict and the candidates for a destination.
func explain(t *testing.T, lab *harness.Lab, to string) (verdict string, reason string, candidates []candidate) {
	t.Helper()
	var reply struct {
		Verdict, Reason string
		Candidates      []candidate
	}
	if err := json.Unmarshal([]byte(lab.Output("ax explain -o json --to "+to)), &reply); err != nil {
		t.Fatal(err)
	}
	return reply.Verdict, reply.Reason, reply.Candidates
}

// reasons are the reasons of the candidates, sorted.
func reasons(candidates []candidate) string {
	var out []string
	for _, c := range candidates {
		out = append(out, c.Reason)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// health waits until the column HEALTH of `ax get servers -o wide` shows a text for so many servers.
func health(t *testing.T, lab *harness.Lab, text string, count int) {
	t.Helper()
	lab.Eventually(runLimit, fmt.Sprintf("%d servers are %s", count, text), func() error {
		if out := lab.Output("ax get servers -o wide"); strings.Count(out, text) != count {
			return errors.New("got " + out)
		}
		return nil
	})
}

// metric returns the value of a metric without labels as it stands in the page.
func metric(lab *harness.Lab, name string) string {
	for line := range strings.Lines(lab.Metrics(name)) {
		if got, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && got == name {
			return value
		}
	}
	return "none"
}

// TestEjection: a server that refuses connections is left out after a few of them, seen as such, and used again after a
// while; no client notices.
func TestEjection(t *testing.T) {
	lab := harness.New(t)
	lab.StartDaemon("--outlier-base-time=4s", "--outlier-max-time=4s")
	ill := fickle(lab, "1.1.1.1", "ill", "")
	serve(lab, "1.1.1.1", "well", "")
	lab.Serving("1.1.1.1:80", 2)
	if got := shares(t, lab, "http://1.1.1.1/", "100"); got["ill"] < 10 || got["well"] < 10 {
		t.Fatalf("two servers: %v", got)
	}
	ill.Signal(syscall.SIGUSR1)
	lab.Eventually(runLimit, "it refuses, and is ejected", func() error {
		if got := shares(t, lab, "http://1.1.1.1/", "20"); got["ill"] > 0 {
			return fmt.Errorf("answers %v", got)
		}
		if n := metric(lab, "appswitch_nodeagent_outliers_ejected"); n != "1" {
			return errors.New("ejected: " + n)
		}
		return nil
	})
	retries := metric(lab, "appswitch_nodeagent_connect_retries_total")
	if got := shares(t, lab, "http://1.1.1.1/", "50"); got["well"] != 50 {
		t.Errorf("while it is ejected: %v", got)
	}
	equal(t, "retries while it is ejected", metric(lab, "appswitch_nodeagent_connect_retries_total"), retries)
	contains(t, "ax get servers -o wide", lab.Output("ax get servers -o wide"), "ejected for ")
	_, _, candidates := explain(t, lab, "1.1.1.1:80")
	equal(t, "explained", reasons(candidates), "ejected shared-label")
	for _, c := range candidates {
		if (c.Endpoint.EjectedUntil != "") == c.Eligible {
			t.Errorf("explained: %+v", c)
		}
	}
	ill.Signal(syscall.SIGUSR2)
	lab.Eventually(runLimit, "it is used again", func() error {
		if got := shares(t, lab, "http://1.1.1.1/", "20"); got["ill"] == 0 {
			return fmt.Errorf("answers %v", got)
		}
		return nil
	})
	health(t, lab, "ejected", 0)
	equal(t, "ejected", metric(lab, "appswitch_nodeagent_outliers_ejected"), "0")
}

// TestSilentServer: a server outside AppSwitch whose packets are lost is left out as well, though its clients don't block in
// connect and give up by themselves.
func TestSilentServer(t *testing.T) {
	lab := harness.New(t)
	lab.StartDaemon("--outlier-base-time=1m")
	serve(lab, "1.1.1.1", "well", "")
	lab.Serving("1.1.1.1:80", 1)
	lab.Neighbour().Output("ip route add blackhole " + harness.NodeIP + "/32")
	lab.Output("ax create vservice --ip 1.1.1.9 --lbtype RoundRobin --ports 80 --backends 1.1.1.1," + harness.NeighbourIP + ":80 mixed")
	const curl = "ax run -- curl -sS --connect-timeout 3 http://1.1.1.9/"
	lab.Eventually(runLimit, "routes have both", func() error {
		_, _, candidates := explain(t, lab, "1.1.1.9:80")
		return wantText(strings.TrimPrefix(reasons(candidates), "external shared-label"), false)
	})
	var clients []*harness.Proc
	for range 8 { // half of which meet the silent one
		clients = append(clients, lab.Start(curl))
	}
	silent := 0
	for _, c := range clients {
		if r := c.Wait(runLimit); r.Code != 0 {
			silent++
		}
	}
	if silent != len(clients)/2 {
		t.Errorf("%d of %d clients met the silent server, want half", silent, len(clients))
	}
	lab.Eventually(runLimit, "the silent server is ejected", func() error {
		if n := metric(lab, "appswitch_nodeagent_outliers_ejected"); n != "1" {
			return errors.New("ejected: " + n)
		}
		return nil
	})
	for range 6 {
		equal(t, "who answers", lab.Output(curl), "well")
	}
	ejections := lab.Output("curl -sS --max-time 10 " + harness.REST + "/v1/ejections")
	contains(t, "GET /v1/ejections", ejections, `"ip":"`+harness.NeighbourIP+`","port":80},"failures":`)
	contains(t, "ax explain", lab.Output("ax explain --to 1.1.1.9:80"), "ejected for ")
	lab.Neighbour().Output("ip route del blackhole " + harness.NodeIP + "/32")
	lab.Output("ax delete vservice mixed")
}

// TestHealthChecks: servers are checked by their own node, and those that are ill are used only when no other is left.
func TestHealthChecks(t *testing.T) {
	lab := node(t)
	const check = "--health-check http:/healthz --health-interval 200ms --health-failures 2"
	a := fickle(lab, "1.1.1.1", "a", check)
	b := fickle(lab, "1.1.1.1", "b", check)
	server := lab.Serving("1.1.1.1:80", 2)[0]
	health(t, lab, " healthy", 2)
	contains(t, "ax get apps -o wide", lab.Output("ax get apps -o wide"), "http:/healthz every 200ms")

	a.Signal(syscall.SIGHUP)
	health(t, lab, "unhealthy (HTTP 503)", 1)
	if got := shares(t, lab, "http://1.1.1.1/", "40"); got["b"] != 40 {
		t.Errorf("a is ill: %v", got)
	}
	_, _, candidates := explain(t, lab, "1.1.1.1:80")
	equal(t, "explained", reasons(candidates), "shared-label unhealthy")
	contains(t, "ax explain", lab.Output("ax explain --to 1.1.1.1:80"), "unhealthy (HTTP 503)")

	b.Signal(syscall.SIGHUP)
	health(t, lab, "unhealthy (HTTP 503)", 2)
	if got := shares(t, lab, "http://1.1.1.1/", "100"); got["a"] < 10 || got["b"] < 10 {
		t.Errorf("all are ill, so all are used: %v", got)
	}
	a.Signal(syscall.SIGHUP)
	b.Signal(syscall.SIGHUP)
	health(t, lab, "unhealthy", 0)
	b.Signal(syscall.SIGSTOP)
	health(t, lab, "unhealthy (no answer in time)", 1)
	if got := shares(t, lab, "http://1.1.1.1/", "20"); got["a"] != 20 {
		t.Errorf("b is stopped: %v", got)
	}
	b.Signal(syscall.SIGCONT)
	health(t, lab, "unhealthy", 0)

	// Who checks is the node, and nobody else comes in through that.
	contains(t, "what the server saw", a.Stdout(), "/healthz "+harness.NodeIP+" appswitch-health")
	for range 20 {
		if reply, err := lab.Get("http://" + server.HostAddress.String() + "/"); err == nil {
			t.Fatalf("a program outside AppSwitch gets in: %+v", reply)
		}
	}
	equal(t, "targets", metric(lab, "appswitch_nodeagent_health_targets"), "2")
	a.Stop()
	lab.Serving("1.1.1.1:80", 1)
	equal(t, "targets when one has ended", metric(lab, "appswitch_nodeagent_health_targets"), "1")
}

// TestHealthCheckKinds: gRPC servers say how they are, and others are well as long as they accept connections.
func TestHealthCheckKinds(t *testing.T) {
	lab := node(t)
	rpc := lab.Start("ax run --ip 1.1.1.1 --health-check grpc:echo --health-interval 200ms --health-failures 2 --", lab.GoProgram("grpchealth"))
	lab.Serving("1.1.1.1:50051", 1)
	health(t, lab, " healthy", 1)
	rpc.Signal(syscall.SIGHUP)
	health(t, lab, "unhealthy (gRPC NOT_SERVING)", 1)
	rpc.Signal(syscall.SIGHUP)
	health(t, lab, "unhealthy", 0)
	rpc.Stop()
	lab.Start("ax run --ip 1.1.1.1 --health-check grpc:nosuch --health-interval 200ms --", lab.GoProgram("grpchealth"))
	lab.Serving("1.1.1.1:50051", 1)
	health(t, lab, "unhealthy (gRPC NotFound", 1)

	plain := fickle(lab, "1.1.1.2", "plain", "--health-check tcp --health-interval 200ms --health-failures 2")
	lab.Serving("1.1.1.2:80", 1)
	health(t, lab, " healthy", 1)
	plain.Signal(syscall.SIGUSR1)
	health(t, lab, "unhealthy (connection refused)", 1)
	plain.Signal(syscall.SIGUSR2)
	health(t, lab, " healthy", 1)

	for _, bad := range []string{"--health-check udp", "--health-interval 1s", "--health-check tcp --health-interval 1ms"} {
		r := lab.Run("ax run --ip 1.1.1.3 " + bad + " -- true")
		if r.Code != 2 || !strings.Contains(r.Stderr, "--health-") {
			t.Errorf("ax run %s: exit status %d: %s", bad, r.Code, r.Stderr)
		}
	}
}
