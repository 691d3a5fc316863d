// Package admission decides which names, addresses and labels a local client of the agent may claim.
//
// Its invariant: nothing is granted that neither the client's rights nor a rule of the configuration grants; a client's
// own word about itself counts for nothing, so [Client] holds what the kernel said. It is pure, but for gate.go, which
// keeps the rules that hold now, counts and logs. Start reading at [Rules.Refused]; the rules' form is in rule.go.
package admission

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"appswitch.io/internal/ax"
)

// Client is who asks, as the kernel says.
type Client struct {
	UID, PID  int      // PID is for the log
	GIDs      []uint32 // its groups
	Cgroup    string   // its control group, "/system.slice/web.service"
	Container string   // the id of the container that the control group names, "" if none
	// Trusted is who may claim everything: root of the host, and the agent's own user. Root of a container is not root of
	// the host, nor is anybody in a user namespace other than the agent's.
	Trusted bool
}

// Claims are what a client asks for; what is zero is not asked for.
type Claims struct {
	IP     netip.Addr
	Name   string
	Labels ax.Labels
}

// Kind of a claim, for metrics.
type Kind string

// The kinds.
const (
	IP    Kind = "ip"
	Name  Kind = "name"
	Label Kind = "label"
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{IP, Name, Label} }

// Claim is one of the Claims.
type Claim struct {
	Kind  Kind
	Value string // "1.1.1.1", "web", "role=prod"
}

// option is how it stands on the command line.
func (c Claim) option() string {
	if c.Kind == Label {
		return "--labels " + c.Value
	}
	return "--" + string(c.Kind) + " " + c.Value
}

// grant is how a rule grants it, and nothing else.
func (c Claim) grant() string { return string(c.Kind) + "=" + c.Value }

// Refused returns the claims that the client may not make, nil if it may make all.
func (rs Rules) Refused(client Client, claims Claims) []Claim {
	if client.Trusted {
		return nil
	}
	var grants []Rule
	for _, r := range rs {
		if r.matches(client) {
			grants = append(grants, r)
		}
	}
	granted := func(by func(Rule) bool) bool { return slices.ContainsFunc(grants, by) }
	var refused []Claim
	if claims.IP.IsValid() && !granted(func(r Rule) bool { return r.grantsIP(claims.IP) }) {
		refused = append(refused, Claim{IP, claims.IP.String()})
	}
	if claims.Name != "" && !granted(func(r Rule) bool { return r.grantsName(claims.Name) }) {
		refused = append(refused, Claim{Name, claims.Name})
	}
	defaults := ax.DefaultLabels()
	for _, key := range slices.Sorted(maps.Keys(claims.Labels)) {
		value := claims.Labels[key]
		if own, is := defaults[key]; is && own == value { // anybody's
			continue
		}
		if !granted(func(r Rule) bool { return r.grantsLabel(key, value) }) {
			refused = append(refused, Claim{Label, key + "=" + value})
		}
	}
	return refused
}

// Explain says what was refused and which lines of the configuration would allow it.
func Explain(client Client, refused []Claim) string {
	var options, grants []string
	for _, c := range refused {
		options, grants = append(options, c.option()), append(grants, c.grant())
	}
	who := fmt.Sprintf("uid=%d", client.UID)
	whom := fmt.Sprintf("user %d", client.UID)
	if client.Container != "" {
		who = "container=" + client.Container
		whom += " in container " + client.Container[:min(12, len(client.Container))]
	}
	return fmt.Sprintf("%s may not claim %s: run it as root of the host (sudo ax run …), or allow it in the daemon's configuration "+
		"(/etc/appswitch/appswitch.yaml; kill -HUP puts it into effect):\nadmit:\n  - %s %s",
		whom, strings.Join(options, " "), who, strings.Join(grants, " "))
}
