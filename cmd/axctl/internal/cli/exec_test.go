package cli

import (
	"strings"
	"testing"

	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

func TestIdentityOptions(t *testing.T) {
	node := &typev1.Node{Ip: "10.0.0.1"}
	labels := map[string]string{"role": "prod", "zone": "east"}
	for want, app := range map[string]*typev1.App{
		"--new-netns=false --labels role=prod,zone=east --ip 1.1.1.1 --name web": {Name: "web", Ip: "1.1.1.1", Labels: labels},
		"--new-netns=false --labels role=prod,zone=east --ip 1.1.1.1":            {Name: "<uuid>", Ip: "1.1.1.1", Labels: labels},
		"--new-netns=false --labels role=prod,zone=east":                         {Name: "<uuid>", Ip: "10.0.0.1", Labels: labels},
	} {
		if got := strings.Join(identityOptions(app, node), " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestOwnAddress(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1": true, "192.0.2.77": false, "": false, "web": false} {
		if got := ownAddress(addr); got != want {
			t.Errorf("ownAddress(%q) = %v", addr, got)
		}
	}
}
