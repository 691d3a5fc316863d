//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestWatch: whoever follows a list is told what comes and goes, over REST and on the command line, and again after the
// daemon was away.
func TestWatch(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	serve(lab, "1.1.1.1", "a", "role=prod")
	serve(lab, "1.1.1.2", "b", "role=test")
	lab.Serving("1.1.1.1:80", 1)
	names := lab.Start("ax get servers -w -l role=prod -o json")
	stream := lab.Start("curl -sSN " + harness.REST + "/v1/watch?kinds=KIND_ENDPOINT")
	events := func() (out []string) {
		for _, line := range harness.Lines(names.Stdout()) {
			var e struct {
				Event  string
				Object harness.Server
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			out = append(out, e.Event+" "+e.Object.ServiceAddress.String())
		}
		return out
	}
	told := func(what string, want ...string) {
		t.Helper()
		lab.Eventually(runLimit, what, func() error {
			if got := events(); !slices.Equal(got, want) {
				return fmt.Errorf("events %q, want %q; %s", got, want, names.Stderr())
			}
			return nil
		})
	}
	told("the list", "ADDED 1.1.1.1:80")
	comes := serve(lab, "1.1.1.3", "c", "role=prod")
	told("a server that came", "ADDED 1.1.1.1:80", "ADDED 1.1.1.3:80")
	comes.Stop()
	told("a server that went", "ADDED 1.1.1.1:80", "ADDED 1.1.1.3:80", "DELETED 1.1.1.3:80")
	lab.Eventually(runLimit, "the same over REST", func() error {
		for _, text := range []string{`"list":true`, `"ip":"1.1.1.2"`, `"ip":"1.1.1.3"`, `"delete":{`} {
			if out := strings.ReplaceAll(stream.Stdout(), " ", ""); !strings.Contains(out, text) {
				return fmt.Errorf("no %s in %s", text, out)
			}
		}
		return nil
	})
	daemon.Kill()
	serve(lab, "1.1.1.4", "d", "role=prod") // listens when the agent is back
	daemon.Start()
	lab.Ready()
	told("after the daemon was away", "ADDED 1.1.1.1:80", "ADDED 1.1.1.3:80", "DELETED 1.1.1.3:80", "ADDED 1.1.1.4:80")
	contains(t, "what the daemon's absence looked like", names.Stderr(), "still watching")
	names.Signal(syscall.SIGINT)
	if r := names.Wait(runLimit); r.Code != 0 {
		t.Errorf("exit status %d after Ctrl-C: %s", r.Code, r.Stderr)
	}
}

// TestTables: the tables of the documentation, and the same through REST.
func TestTables(t *testing.T) {
	lab := node(t)
	p := lab.Start("ax run --ip 1.1.1.1 --name web --labels role=prod --", lab.GoProgram("goserver"), "-listen", ":80")
	server := lab.Serving("1.1.1.1:80", 1)[0]
	apps, err := lab.Apps()
	if err != nil || len(apps) != 1 {
		t.Fatalf("apps: %v, %v", apps, err)
	}
	app := apps[0]
	if app.Name != "web" || app.IP != "1.1.1.1" || app.Node != harness.NodeName || app.Cluster != "appswitch" || app.Driver != "user" ||
		app.Labels["role"] != "prod" || len(app.Labels) != 1 || app.PID != p.PID() || !regexp.MustCompile(`^[0-9a-f]{8}$`).MatchString(app.ID) {
		t.Errorf("app: %+v", app)
	}
	if server.AppID != app.ID || server.Name != "web" || server.HostAddress.IP != harness.NodeIP || server.Labels["role"] != "prod" {
		t.Errorf("server: %+v", server)
	}
	for _, c := range []struct{ kind, header, row string }{
		{"apps", "NAME APPID NODEID CLUSTER APPIP DRIVER LABELS ZONES", "web " + app.ID + " node1 appswitch 1.1.1.1 user role=prod"},
		{"servers", "NODEID CLUSTER APPID PROTO SERVICEADDR IPV4ADDR", "node1 appswitch " + app.ID + " tcp 1.1.1.1:80 " + server.HostAddress.String()},
		{"sockets", "ID NODEID APPID INODE PROTO FLAGS BINDIP BACKLOG", "node1 " + app.ID},
		{"vservices", "VSNAME VSTYPE VSIP VSPORTS VSBACKENDIPS", ""},
		{"nodes", "NODEID CLUSTER IP DRIVER", "node1 appswitch " + harness.NodeIP + " user"},
	} {
		out := lab.Output("ax get " + c.kind)
		lines := harness.Lines(out)
		contains(t, "ax get "+c.kind, strings.Join(strings.Fields(lines[0]), " "), c.header)
		contains(t, "ax get "+c.kind, strings.Join(strings.Fields(out), " "), c.row)
	}
	for _, kind := range []string{"nodes", "apps", "servers", "sockets", "vservices"} {
		reply, err := lab.Get(harness.REST + "/v1/" + kind)
		if err != nil || reply.Status != 200 || !json.Valid([]byte(reply.Body)) {
			t.Errorf("GET /v1/%s: %v, %+v", kind, err, reply)
		}
	}
	contains(t, "ax status", lab.Output("ax status"), harness.NodeName)
	lab.Output("ax check")
}
