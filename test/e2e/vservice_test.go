//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// answers waits until a curl under AppSwitch, started with line, gets body from url.
func answers(lab *harness.Lab, line, url, body string) {
	lab.Eventually(runLimit, url+" answers "+body, func() error {
		if r := lab.Run(line + " curl -sS --max-time 5 " + url); strings.TrimSpace(r.Stdout) != body {
			return fmt.Errorf("got %q, %s", r.Stdout, r.Stderr)
		}
		return nil
	})
}

// served waits until url answers whatever, and returns it.
func served(lab *harness.Lab, url string) (body string) {
	lab.Eventually(runLimit, url+" answers", func() error {
		r := lab.Run("ax run -- curl -sS --max-time 5 " + url)
		if body = strings.TrimSpace(r.Stdout); r.Code != 0 {
			return fmt.Errorf("%d: %s", r.Code, r.Stderr)
		}
		return nil
	})
	return body
}

// vservice makes a virtual service for the time of a test.
func vservice(t *testing.T, lab *harness.Lab, name, flags string) {
	t.Helper()
	contains(t, "create", lab.Output("ax create vservice "+flags+" "+name), "Service '"+name+"' created successfully with IP '")
	t.Cleanup(func() {
		equal(t, "delete", lab.Output("ax delete vservice "+name), "Service '"+name+"' deleted successfully.")
	})
}

// TestVirtualServiceBalancers: what each balancer promises, seen by a client with many connections.
func TestVirtualServiceBalancers(t *testing.T) {
	lab := node(t)
	for i, id := range []string{"a", "b", "c"} {
		address := fmt.Sprintf("1.1.1.%d", i+1)
		serve(lab, address, id, "")
		lab.Serving(address+":80", 1)
	}
	client := lab.GoProgram("goclient")
	get := func(lab *harness.Lab, t *testing.T, name string, count int) summary {
		t.Helper()
		served(lab, "http://"+name+":8080/")
		s := summarize(t, lab.Start("ax run -- "+client, "-url", "http://"+name+":8080/", "-count", fmt.Sprint(count)))
		if s.Failures != 0 || s.Requests != count {
			t.Errorf("%s: %+v", name, s)
		}
		return s
	}
	const all = " --backends 1.1.1.1,1.1.1.2,1.1.1.3 --ports 8080:80"
	t.Run("weights", func(t *testing.T) {
		lab := lab.In(t)
		vservice(t, lab, "turns", "--lbtype RoundRobin --backends 1.1.1.1=3,1.1.1.2=2,1.1.1.3 --ports 8080:80")
		if s := get(lab, t, "turns", 60); s.Answers["a"] != 30 || s.Answers["b"] != 20 || s.Answers["c"] != 10 {
			t.Errorf("weights 3, 2, 1: %+v", s)
		}
		contains(t, "get vservices -o wide", lab.Output("ax get vservice turns -o wide --no-headers"), "[1.1.1.1 1.1.1.2 1.1.1.3]  [3 2 1]")
	})
	t.Run("random", func(t *testing.T) {
		lab := lab.In(t)
		vservice(t, lab, "chance", "--backends 1.1.1.1=8,1.1.1.2 --ports 8080:80")
		// b gets 1/9: fewer than 5 or more than 100 of 270 happens once in 10^9 runs.
		if s := get(lab, t, "chance", 270); s.Answers["b"] < 5 || s.Answers["b"] > 100 || s.Answers["a"]+s.Answers["b"] != 270 {
			t.Errorf("weights 8, 1: %+v", s)
		}
	})
	t.Run("maglev", func(t *testing.T) {
		lab := lab.In(t)
		vservice(t, lab, "hash", "--lbtype Maglev"+all)
		if s := get(lab, t, "hash", 40); len(s.Answers) != 1 {
			t.Errorf("one client: %+v, want one server", s)
		}
		found := map[string]bool{}
		for range 24 { // all alike: once in 10^11 runs
			found[served(lab, "http://hash:8080/")] = true
		}
		if len(found) < 2 {
			t.Errorf("24 clients are sent to %v alone", found)
		}
	})
	t.Run("affinity", func(t *testing.T) {
		lab := lab.In(t)
		vservice(t, lab, "sticky", "--affinity 5m"+all)
		if s := get(lab, t, "sticky", 40); len(s.Answers) != 1 {
			t.Errorf("one client: %+v, want one server", s)
		}
	})
	t.Run("leastconn", func(t *testing.T) {
		lab := lab.In(t)
		vservice(t, lab, "least", "--lbtype LeastConn"+all)
		if s := get(lab, t, "least", 60); s.Answers["a"]+s.Answers["b"]+s.Answers["c"] != 60 {
			t.Errorf("%+v", s)
		}
	})
}

// TestVirtualServiceLeastConn: connections that stay open are shared evenly, and count no longer once they are closed.
func TestVirtualServiceLeastConn(t *testing.T) {
	lab := node(t)
	for i := range 3 {
		address := fmt.Sprintf("1.1.1.%d", i+1)
		serve(lab, address, address, "")
		lab.Serving(address+":80", 1)
	}
	vservice(t, lab, "least", "--lbtype LeastConn --backends 1.1.1.1,1.1.1.2,1.1.1.3 --ports 8080:80")
	served(lab, "http://least:8080/")
	const python = "import socket, sys, time\nkept = [socket.create_connection(('least', 8080)) for _ in range(9)]\ntime.sleep(600)\n"
	client := lab.Start("ax run -- "+lab.Need("python3")+" -c", python)
	lab.Eventually(runLimit, "nine connections, three to each server", func() error {
		accepted := map[string]int{}
		sockets, err := lab.Sockets()
		for _, s := range sockets {
			if s.BindAddress.Port == 8080 {
				accepted[s.AppID]++
			}
		}
		for _, n := range accepted {
			if n != 3 {
				err = fmt.Errorf("%v", accepted)
			}
		}
		if len(accepted) != 3 {
			err = fmt.Errorf("%v", accepted)
		}
		return err
	})
	client.Stop()
	lab.Eventually(runLimit, "no connection counts", func() error {
		if m := strings.TrimSpace(lab.Metrics("appswitch_nodeagent_connections_counted")); !strings.HasSuffix(m, " 0") {
			return fmt.Errorf("%s", m)
		}
		return nil
	})
}

// TestVirtualServiceClients: a client with an address of its own is known by it, whatever runs there.
func TestVirtualServiceClients(t *testing.T) {
	lab := node(t)
	for i := range 3 {
		address := fmt.Sprintf("1.1.1.%d", i+1)
		serve(lab, address, address, "")
		lab.Serving(address+":80", 1)
	}
	const all = " --backends 1.1.1.1,1.1.1.2,1.1.1.3 --ports 8080:80"
	vservice(t, lab, "hash", "--lbtype Maglev"+all)
	vservice(t, lab, "sticky", "--affinity 10m"+all)
	for _, name := range []string{"hash", "sticky"} {
		url := "http://" + name + ":8080/"
		served(lab, url)
		for i := range 4 {
			line := fmt.Sprintf("ax run --ip 2.2.2.%d -- curl -sS --max-time 5 %s", i+1, url)
			first := lab.Output(line)
			for range 4 {
				equal(t, line, lab.Output(line), first)
			}
		}
	}
}

// TestVirtualServiceSource: connections come from the address of the host that the virtual service names.
func TestVirtualServiceSource(t *testing.T) {
	lab := node(t)
	const source = "10.77.0.77"
	lab.Output("ip addr add " + source + "/24 dev net0")
	lab.Neighbour().Start(lab.GoProgram("goserver") + " -listen :8080 -id outside")
	listens(lab, harness.NeighbourIP+":8080")
	vservice(t, lab, "out", "--source-ip "+source+" --backends "+harness.NeighbourIP+":8080")
	served(lab, "http://out:8080/")
	contains(t, "what the outside sees", lab.Output("ax run -- curl -sS --max-time 5 http://out:8080/whoami"), "remote="+source+":")
	vservice(t, lab, "nowhere", "--source-ip 10.77.0.99 --backends "+harness.NeighbourIP+":8080")
	lab.Eventually(runLimit, "an address that the host does not have is told", func() error {
		if r := lab.Run("ax run -- curl -v -sS --max-time 5 http://nowhere:8080/"); !strings.Contains(r.Stderr, "Cannot assign requested address") {
			return fmt.Errorf("%d: %s", r.Code, r.Stderr)
		}
		return nil
	})
}

// TestVirtualServiceRedirect is the migrated application of the documentation: its old address leads to the new one.
func TestVirtualServiceRedirect(t *testing.T) {
	lab := node(t)
	old := serve(lab, "1.1.1.1", "old", "")
	lab.Serving("1.1.1.1:80", 1)
	answers(lab, "ax run --", "http://1.1.1.1/", "old")
	t.Run("before the new one serves", func(t *testing.T) {
		lab := lab.In(t)
		vservice(t, lab, "moved", "--ip 1.1.1.1 --backends 1.1.1.4")
		lab.Eventually(runLimit, "a backend that is not there gets no connections, and nobody else does", func() error {
			if r := lab.Run("ax run -- curl -sS --max-time 5 http://1.1.1.1/"); r.Code != 7 {
				return fmt.Errorf("%d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
			return nil
		})
		serve(lab, "1.1.1.4", "new", "")
		lab.Serving("1.1.1.4:80", 1)
		answers(lab, "ax run --", "http://1.1.1.1/", "new")
		answers(lab, "ax run --", "http://moved/", "new")
	})
	answers(lab, "ax run --", "http://1.1.1.1/", "old")
	t.Run("after the old one ended", func(t *testing.T) {
		lab := lab.In(t)
		serve(lab, "1.1.1.5", "newer", "")
		lab.Serving("1.1.1.5:80", 1)
		vservice(t, lab, "moved", "--ip 1.1.1.1 --backends 1.1.1.5")
		answers(lab, "ax run --", "http://1.1.1.1/", "newer")
		old.Stop()
		lab.Eventually(runLimit, "the old server is gone", func() error {
			servers, err := lab.Servers()
			if err == nil && len(servers) != 1 {
				err = fmt.Errorf("%v", servers)
			}
			return err
		})
		equal(t, "without the old server", lab.Output("ax run -- curl -sS --max-time 5 http://1.1.1.1/"), "newer")
	})
}

// TestVirtualServiceOutside: backends outside AppSwitch are reached as if they were inside, and are no way around the
// rules for what is inside.
func TestVirtualServiceOutside(t *testing.T) {
	lab := node(t)
	lab.Neighbour().Start(lab.GoProgram("goserver") + " -listen :8080 -id outside")
	listens(lab, harness.NeighbourIP+":8080")
	serve(lab, "1.1.1.1", "inside", "role=prod")
	host := lab.Serving("1.1.1.1:80", 1)[0].HostAddress

	vservice(t, lab, "db", "--ip 9.9.9.1 --backends "+harness.NeighbourIP+":8080 --ports 80:80")
	vservice(t, lab, "any", "--backends "+harness.NeighbourIP+":* --ports 81:8080")
	for _, line := range []string{"ax run --", "ax run --labels role=test --"} {
		answers(lab, line, "http://9.9.9.1/", "outside")
		answers(lab, line, "http://any:81/", "outside")
	}
	out := lab.Output("ax run --ip 2.2.2.2 -- curl -sS --max-time 5 -w %{remote_ip}:%{remote_port} http://db/whoami")
	contains(t, "what the outside sees", out, "remote="+harness.NodeIP+":")
	contains(t, "what the client sees", out, "9.9.9.1:80")

	vservice(t, lab, "mixed", "--lbtype RoundRobin --backends 1.1.1.1,"+harness.NeighbourIP+":8080 --ports 80:80")
	answers(lab, "ax run --labels role=prod --", "http://mixed/", "inside")
	answers(lab, "ax run --labels role=prod --", "http://mixed/", "outside")

	vservice(t, lab, "sneaky", "--ip 9.9.9.2 --ports 80:80,81:81 --backends "+host.String())
	vservice(t, lab, "admin", "--ip 9.9.9.3 --ports 80:80 --backends "+harness.NodeIP+":6664")
	served(lab, "http://db/") // the routes have come at least this far
	for url, what := range map[string]string{"http://9.9.9.2/": "the host port of a server of other labels", "http://9.9.9.3/": "a port of AppSwitch itself"} {
		refused(t, lab, what, "ax run --labels role=test --", url)
	}
	r := lab.Run("ax create vservice --backends 127.0.0.1:22 --ports 22 loop")
	if r.Code == 0 || !strings.Contains(r.Stderr, "127.0.0.1 is loopback") {
		t.Errorf("a backend on the host's loopback: %d %s", r.Code, r.Stderr)
	}
}

// TestApply: files of virtual services and policies take effect, once, and diff tells before.
func TestApply(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "a", "role=web")
	serve(lab, "1.1.1.2", "b", "role=web")
	lab.Serving("1.1.1.1:80", 1)
	lab.Serving("1.1.1.2:80", 1)
	const curl = "ax run --labels role=web,team=blue --"
	file := lab.WriteFile("shop.yaml", `
kind: VirtualService
name: shop
backends: [1.1.1.1]
---
kind: Policy
name: no-blue
action: deny
from: {team: blue}
to: {role: web}
`)
	if r := lab.Run("ax diff -f " + file); r.Code != 1 || !strings.Contains(r.Stdout, "+name: shop") {
		t.Errorf("diff: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	equal(t, "apply", lab.Output("ax apply -f "+file), "vservice/shop created\npolicy/no-blue created")
	equal(t, "apply again", lab.Output("ax apply -f "+file), "vservice/shop unchanged\npolicy/no-blue unchanged")
	equal(t, "diff", lab.Output("ax diff -f "+file), "")
	answers(lab, "ax run --labels role=web --", "http://shop/", "a")
	lab.Eventually(runLimit, "the policy denies", func() error {
		if r := lab.Run(curl + " curl -sS --max-time 5 http://shop/"); r.Code != 7 {
			return fmt.Errorf("%d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
	address := lab.Output("ax get vservice shop -o json")
	lab.WriteFile("shop.yaml", "kind: VirtualService\nname: shop\nbackends: [1.1.1.2]\n")
	equal(t, "a change", lab.Output("ax apply -f "+file), "vservice/shop configured")
	answers(lab, "ax run --labels role=web --", "http://shop/", "b")
	_, was, _ := strings.Cut(address, `"ip": `)
	was, _, _ = strings.Cut(was, "\n")
	contains(t, "the address that was made up stays", lab.Output("ax get vservice shop -o json"), was)
	lab.Output("curl -sS -f --max-time 10 -X DELETE " + harness.REST + "/v1/policies/no-blue")
	answers(lab, curl, "http://shop/", "b")
	lab.Output("ax delete vservice shop")
}
