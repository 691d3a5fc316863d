//go:build e2e

package e2e

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

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
