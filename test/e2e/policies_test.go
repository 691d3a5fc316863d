//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

const policyCurl = " curl -sS --max-time 5 "

// denied waits until a curl is refused; line is what it starts with.
func denied(lab *harness.Lab, line, url string) {
	const couldNotConnect = 7
	lab.Eventually(runLimit, line+" to "+url+" is refused", func() error {
		if r := lab.Run(line + policyCurl + "-v " + url); r.Code != couldNotConnect || !strings.Contains(r.Stderr, "Connection refused") {
			return fmt.Errorf("%d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
}

// policy makes one; more are flags that are taken as they are.
func policy(t *testing.T, lab *harness.Lab, name, flags string, more ...string) {
	t.Helper()
	out := lab.Output("ax create policy "+name+" "+flags, more...)
	contains(t, "create policy "+name, out, "Policy '"+name+"' created successfully")
}

// observedPolicy is what `ax observe -o json` tells of a connect.
type observedPolicy struct {
	Flow struct {
		AppName, Verdict, Reason, Errno, Policy, AuditPolicy, Protocol string
		Destination                                                    harness.Address
	}
}

// observed returns the past connects that a filter selects.
func observed(t *testing.T, lab *harness.Lab, filter string) (out []observedPolicy) {
	t.Helper()
	for _, line := range harness.Lines(lab.Output("ax observe --follow=false -o json " + filter)) {
		var o observedPolicy
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, o)
	}
	return out
}

// TestPolicies: connections are refused and allowed by port and by labels, whatever leads to the server, live, and with the
// policy's name wherever it is told.
func TestPolicies(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	serve(lab, "1.1.1.1", "web", "role=db,team=blue")
	lab.Start("ax run --ip 1.1.1.1 --labels role=db,team=blue --", lab.GoProgram("goserver"), "-listen", ":5432", "-id", "db")
	lab.Serving("1.1.1.1:80", 1)
	host := lab.Serving("1.1.1.1:5432", 1)[0].HostAddress
	vservice(t, lab, "db", "--ip 9.9.9.1 --backends 1.1.1.1 --ports 80:5432")
	const client = "ax run --name client --labels role=client,team=blue --"
	answers(lab, client, "http://1.1.1.1:5432/", "db")
	answers(lab, client, "http://9.9.9.1/", "db")

	policy(t, lab, "no-db", "--action deny --from role=client --to role=db --ports 5432-5433 --protocol tcp")
	denied(lab, client, "http://1.1.1.1:5432/")
	refused(t, lab, "by way of a virtual service", client, "http://9.9.9.1/")
	refused(t, lab, "by way of the host port", client, "http://"+host.String()+"/")
	answers(lab, client, "http://1.1.1.1/", "web")
	answers(lab, "ax run --labels role=admin,team=blue --", "http://1.1.1.1:5432/", "db")

	told := observed(t, lab, "--verdict deny --app client --to 1.1.1.1:5432 --last 1")
	if len(told) != 1 || told[0].Flow.Policy != "no-db" || told[0].Flow.Reason != "policy-deny: no-db" || told[0].Flow.Errno != "ECONNREFUSED" {
		t.Errorf("observed %+v", told)
	}
	why := lab.Output("ax explain --labels role=client,team=blue --to 1.1.1.1:5432")
	contains(t, "explain", why, "deny (policy-deny: no-db)")
	contains(t, "explain", why, "ECONNREFUSED")
	contains(t, "metrics", lab.Metrics("policy_flows_total"), `{outcome="deny",policy="no-db"}`)
	contains(t, "the agent's log", daemon.Log(), "connection refused by a policy")
	contains(t, "the agent's log", daemon.Log(), "no-db")
	contains(t, "the list", strings.Join(strings.Fields(lab.Output("ax get policies --no-headers")), " "), "no-db deny enforce role=client role=db - 5432-5433 tcp")

	// Who shares no label gets in by a policy that allows, and not past one that denies.
	const stranger = "ax run --labels role=stranger --"
	refused(t, lab, "a client without a shared label", stranger, "http://1.1.1.1/")
	policy(t, lab, "strangers", "--action allow --to role=db --from", "role in (stranger, guest), team!=red")
	answers(lab, stranger, "http://1.1.1.1/", "web")
	answers(lab, stranger, "http://1.1.1.1:5432/", "db")
	refused(t, lab, "a condition that does not hold", "ax run --labels role=stranger,team=red --", "http://1.1.1.1/")
	policy(t, lab, "only-blue", "--action deny --from team!=blue --to team=blue --ports 80")
	denied(lab, stranger, "http://1.1.1.1/")
	answers(lab, client, "http://1.1.1.1/", "web")
	lab.Output("ax delete policy only-blue strangers no-db")
	answers(lab, client, "http://1.1.1.1:5432/", "db")
	denied(lab, stranger, "http://1.1.1.1:5432/")
}

// TestPolicyOutside: networks outside are refused, to a connect as to a virtual service's backend, over TCP and UDP; names
// are looked up all the same.
func TestPolicyOutside(t *testing.T) {
	lab := node(t)
	out := lab.Neighbour()
	out.Start(lab.GoProgram("goserver") + " -listen :8080 -id outside")
	listens(lab, harness.NeighbourIP+":8080")
	serve(lab, "1.1.1.1", "inside", "")
	lab.Serving("1.1.1.1:80", 1)
	const near, far = "http://" + harness.NeighbourIP + ":8080/", "http://" + harness.ExternalIP + ":8080/"
	vservice(t, lab, "far", "--ip 9.9.9.1 --backends "+harness.ExternalIP+":8080 --ports 80")
	for _, url := range []string{near, far, "http://9.9.9.1/"} {
		answers(lab, "ax run --", url, "outside")
	}
	policy(t, lab, "no-far", "--action deny --to-cidr 203.0.113.0/24,2001:db8::/32")
	denied(lab, "ax run --", far)
	refused(t, lab, "by way of a virtual service", "ax run --", "http://9.9.9.1/")
	answers(lab, "ax run --", near, "outside")
	answers(lab, "ax run --", "http://1.1.1.1/", "inside")
	if told := observed(t, lab, "--verdict deny --to "+harness.ExternalIP+" --last 1"); len(told) != 1 || told[0].Flow.Policy != "no-far" {
		t.Errorf("observed %+v", told)
	}
	contains(t, "IPv6", lab.Output("ax explain --to [2001:db8::7]:443"), "deny (policy-deny: no-far)")
	// A datagram is refused when it is sent, whether the socket is connected or not; the first of them is told of.
	const datagram = `import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(3):
    try:
        s.sendto(b"x", (sys.argv[1], 9))
        print("sent")
    except ConnectionRefusedError:
        print("refused")
`
	equal(t, "datagrams", strings.Join(harness.Lines(lab.Output("ax run --name udp -- python3 -c", datagram, harness.ExternalIP)), " "), "refused refused refused")
	equal(t, "datagrams elsewhere", harness.Lines(lab.Output("ax run -- python3 -c", datagram, harness.NeighbourIP))[0], "sent")
	if told := observed(t, lab, "--app udp"); len(told) != 1 || told[0].Flow.Policy != "no-far" || told[0].Flow.Protocol != "PROTOCOL_UDP" {
		t.Errorf("observed %+v", told)
	}
	lab.Output("ax delete policy no-far")

	policy(t, lab, "no-outside", "--action deny --to-cidr 0.0.0.0/0,::/0 --except-cidr "+harness.ExternalIP+" --protocol tcp")
	denied(lab, "ax run --", near)
	answers(lab, "ax run --", far, "outside")
	answers(lab, "ax run --", "http://far/", "outside")
	lab.Output("ax delete policy no-outside")
}

// TestPolicyAudit: a policy in audit mode refuses nothing and tells what it would, until it is enforced, live.
func TestPolicyAudit(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	lab.Neighbour().Start(lab.GoProgram("goserver") + " -listen :8080 -id outside")
	listens(lab, harness.NeighbourIP+":8080")
	serve(lab, "1.1.1.1", "web", "")
	lab.Serving("1.1.1.1:80", 1)
	const outside = "http://" + harness.NeighbourIP + ":8080/"
	policy(t, lab, "quiet", "--action deny --ports 80,8080 --audit")
	lab.Eventually(runLimit, "the policy is there", func() error {
		lab.Output("ax run --" + policyCurl + "http://1.1.1.1/")
		return wantText(lab.Output("ax observe --follow=false --no-headers --verdict audit"), true)
	})
	for range 10 {
		equal(t, "audited", lab.Output("ax run --name audited --"+policyCurl+"http://1.1.1.1/"), "web")
		equal(t, "audited outside", lab.Output("ax run --name audited --"+policyCurl+outside), "outside")
	}
	told := observed(t, lab, "--verdict audit --last 20")
	verdicts := map[string]int{}
	for _, o := range told {
		if o.Flow.AuditPolicy != "quiet" || o.Flow.Policy != "" || o.Flow.Errno != "" && o.Flow.Errno != "EINPROGRESS" {
			t.Errorf("observed %+v", o)
		}
		verdicts[o.Flow.Verdict+" "+o.Flow.Reason]++
	}
	if verdicts["VERDICT_ALLOW shared-label"] != 10 || verdicts["VERDICT_PASSTHROUGH external"] != 10 {
		t.Errorf("observed %v", verdicts)
	}
	table := lab.Output("ax observe --follow=false --no-headers --last 1 --verdict audit")
	contains(t, "observe", table, "audit")
	contains(t, "observe", table, "policy-deny: quiet")
	equal(t, "nothing is denied", lab.Output("ax observe --follow=false --no-headers --verdict deny"), "")
	contains(t, "explain", lab.Output("ax explain --to 1.1.1.1:80"), "policy quiet would refuse it")
	contains(t, "metrics", lab.Metrics("policy_flows_total"), `{outcome="audit",policy="quiet"}`)
	contains(t, "the agent's log", daemon.Log(), "connection would be refused by a policy in audit mode")

	file := lab.WriteFile("quiet.yaml", "kind: Policy\nname: quiet\naction: deny\nports: [80, 8080]\n")
	if r := lab.Run("ax diff -f " + file); r.Code != 1 || !strings.Contains(r.Stdout, "-audit: true") {
		t.Errorf("diff: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	equal(t, "apply", lab.Output("ax apply -f "+file), "policy/quiet configured")
	denied(lab, "ax run --", "http://1.1.1.1/")
	refused(t, lab, "enforced outside", "ax run --", outside)
	lab.Output("ax delete policy quiet")
	answers(lab, "ax run --", "http://1.1.1.1/", "web")
}

// TestPoliciesOutliveTheRegistry: the policies that a node has hold while registry and router are dead, to those that deny as
// to those that allow.
func TestPoliciesOutliveTheRegistry(t *testing.T) {
	lab := harness.New(t)
	services := lab.StartShape(harness.Processes)
	serve(lab, "1.1.1.1", "web", "role=web")
	serve(lab, "1.1.1.2", "db", "role=web")
	lab.Serving("1.1.1.1:80", 1)
	lab.Serving("1.1.1.2:80", 1)
	policy(t, lab, "no-test", "--action deny --from env=test --ports 80")
	policy(t, lab, "guests", "--action allow --from role=guest --to role=web")
	const test, guest = "ax run --labels role=web,env=test --", "ax run --labels role=guest --"
	denied(lab, test, "http://1.1.1.1/")
	answers(lab, guest, "http://1.1.1.1/", "web")
	for _, name := range []string{"registryd", "routerd"} {
		services.Part(name).Kill()
	}
	for range 3 {
		refused(t, lab, "with registry and router dead", test, "http://1.1.1.1/")
		equal(t, "an allowed client", lab.Output(guest+policyCurl+"http://1.1.1.2/"), "db")
		equal(t, "a client with the label", lab.Output("ax run --labels role=web --"+policyCurl+"http://1.1.1.1/"), "web")
	}
	for _, name := range []string{"registryd", "routerd"} {
		services.Part(name).Start()
	}
	lab.Ready()
	lab.Output("ax delete policy no-test guests")
	answers(lab, test, "http://1.1.1.1/", "web")
	denied(lab, guest, "http://1.1.1.1/")
}

// TestPolicyReplay: a draft is tried on what happened, and changes nothing.
func TestPolicyReplay(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "web", "role=web")
	serve(lab, "1.1.1.2", "db", "role=db")
	lab.Serving("1.1.1.1:80", 1)
	lab.Serving("1.1.1.2:80", 1)
	const both = "ax run --name both --labels role=web,tier=db --"
	for range 3 {
		lab.Output(both + policyCurl + "http://1.1.1.1/")
	}
	refused(t, lab, "without a shared label", both, "http://1.1.1.2/")
	draft := lab.WriteFile("draft.yaml", `
kind: Policy
name: no-web
action: deny
to: role=web
---
kind: Policy
name: tiers
action: allow
from: tier
to: {role: db}
`)
	r := lab.Run("ax policy replay -f " + draft)
	if r.Code != 1 || !strings.Contains(r.Stdout, "4 of ") || r.Stderr != "" {
		t.Errorf("replay: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	lines := strings.Join(strings.Fields(r.Stdout), " ")
	contains(t, "replay", lines, "3 both role=web,tier=db tcp 1.1.1.1:80 allow (shared-label) deny (policy-deny: no-web)")
	contains(t, "replay", lines, "1 both role=web,tier=db tcp 1.1.1.2:80 deny (no-shared-label) allow (policy-allow: tiers)")
	equal(t, "nothing has changed", lab.Output("ax get policies -o name"), "")
	equal(t, "nothing is refused", lab.Output(both+policyCurl+"http://1.1.1.1/"), "web")

	flows := lab.WriteFile("flows.json", lab.Output("ax observe --follow=false --app both -o json"))
	lab.Output("ax apply -f " + draft)
	denied(lab, both, "http://1.1.1.1/")
	if r := lab.Run("ax policy replay -f " + draft + " --flows " + flows); r.Code != 0 || !strings.Contains(r.Stdout, "0 of 5 connections would change") {
		t.Errorf("replay of what holds: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := lab.Run("ax policy replay --without no-web,tiers --flows " + flows + " -o json"); r.Code != 1 || !strings.Contains(r.Stdout, `"changed": 5`) {
		t.Errorf("replay without them: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := lab.Run("ax policy replay -f nowhere.yaml"); r.Code != 2 {
		t.Errorf("replay of nothing: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	lab.Output("ax delete policy no-web tiers")
}
