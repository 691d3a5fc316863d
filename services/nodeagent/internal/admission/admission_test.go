package admission

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const someContainer = "3f2a00000000000000000000000000000000000000000000000000000000beef"

func rules(t *testing.T, texts ...string) Rules {
	t.Helper()
	rs, err := ParseRules(texts)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestRefused(t *testing.T) {
	user := Client{UID: 1001, GIDs: []uint32{1001, 27}, Cgroup: "/user.slice/user-1001.slice/session-1.scope"}
	boxed := Client{UID: 0, Cgroup: "/system.slice/docker-" + someContainer + ".scope", Container: someContainer}
	ip := func(s string) Claims { return Claims{IP: netip.MustParseAddr(s)} }
	prod := Claims{Labels: ax.Labels{"role": "prod"}}
	for _, tc := range []struct {
		name   string
		rules  []string
		client Client
		claims Claims
		want   string // the refused claims
	}{
		{"nothing claimed", nil, user, Claims{}, ""},
		{"default labels, given", nil, user, Claims{Labels: ax.DefaultLabels()}, ""},
		{"no rules", nil, user, Claims{IP: netip.MustParseAddr("1.1.1.1"), Name: "web", Labels: ax.Labels{"role": "prod", "zone": "default"}}, "ip=1.1.1.1 name=web label=role=prod"},
		{"root of the host", nil, Client{Trusted: true}, Claims{IP: netip.MustParseAddr("1.1.1.1"), Name: "web", Labels: ax.Labels{"a": "b"}}, ""},
		{"root of a container", nil, boxed, ip("1.1.1.1"), "ip=1.1.1.1"},
		{"by uid", []string{"uid=1001 ip=1.1.1.0/24"}, user, ip("1.1.1.1"), ""},
		{"another address", []string{"uid=1001 ip=1.1.1.0/24"}, user, ip("1.1.2.1"), "ip=1.1.2.1"},
		{"one address", []string{"uid=1001 ip=1.1.1.1"}, user, ip("1.1.1.1"), ""},
		{"IPv6", []string{"uid=1001 ip=fd00::/8"}, user, ip("fd00::1"), ""},
		{"another user", []string{"uid=1002 ip=1.1.1.0/24"}, user, ip("1.1.1.1"), "ip=1.1.1.1"},
		{"a range of users", []string{"uid=1000-1999 name=*"}, user, Claims{Name: "web"}, ""},
		{"several users", []string{"uid=7 uid=1001 name=*"}, user, Claims{Name: "web"}, ""},
		{"by group", []string{"gid=27 name=web-*"}, user, Claims{Name: "Web-1"}, ""},
		{"not in the group", []string{"gid=28 name=web-*"}, user, Claims{Name: "web-1"}, "name=web-1"},
		{"all that is said of who must hold", []string{"uid=1001 gid=28 name=*"}, user, Claims{Name: "web"}, "name=web"},
		{"another name", []string{"gid=27 name=web-*"}, user, Claims{Name: "db"}, "name=db"},
		{"label", []string{"uid=1001 label=role=prod"}, user, prod, ""},
		{"another value", []string{"uid=1001 label=role=test"}, user, prod, "label=role=prod"},
		{"any value", []string{"uid=1001 label=role=*"}, user, prod, ""},
		{"any label", []string{"uid=1001 label=*=*"}, user, prod, ""},
		{"every label must be granted", []string{"uid=1001 label=role=prod"}, user, Claims{Labels: ax.Labels{"role": "prod", "zone": "a"}}, "label=zone=a"},
		{"several rules", []string{"uid=1001 ip=1.0.0.0/8", "gid=27 name=web"}, user, Claims{IP: netip.MustParseAddr("1.1.1.1"), Name: "web"}, ""},
		{"control group", []string{"cgroup=/user.slice/*/session-*.scope name=*"}, user, Claims{Name: "web"}, ""},
		{"below a control group", []string{"cgroup=/user.slice/** name=*"}, user, Claims{Name: "web"}, ""},
		{"a * ends at a slash", []string{"cgroup=/user.slice/* name=*"}, user, Claims{Name: "web"}, "name=web"},
		{"any container", []string{"container=* ip=0.0.0.0/0"}, boxed, ip("1.1.1.1"), ""},
		{"no container", []string{"container=* ip=0.0.0.0/0"}, user, ip("1.1.1.1"), "ip=1.1.1.1"},
		{"this container", []string{"container=3f2a* ip=0.0.0.0/0"}, boxed, ip("1.1.1.1"), ""},
		{"another container", []string{"container=3f2b* ip=0.0.0.0/0"}, boxed, ip("1.1.1.1"), "ip=1.1.1.1"},
		{"IPv4 networks hold no IPv6 addresses", []string{"uid=1001 ip=0.0.0.0/0"}, user, ip("fd00::1"), "ip=fd00::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			refused := rules(t, tc.rules...).Refused(tc.client, tc.claims)
			for _, c := range refused {
				got = append(got, c.grant())
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Fatalf("refused %q, want %q", s, tc.want)
			}
			if tc.want == "" {
				return
			}
			// What the message says to add is enough.
			_, line, _ := strings.Cut(Explain(tc.client, refused), "  - ")
			if left := rules(t, append(tc.rules, line)...).Refused(tc.client, tc.claims); left != nil {
				t.Errorf("with %q still refused: %v", line, left)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	got := Explain(Client{UID: 1001}, []Claim{{IP, "1.1.1.1"}, {Label, "role=prod"}})
	for _, part := range []string{"user 1001 may not claim --ip 1.1.1.1 --labels role=prod: ", "sudo ax run", "\nadmit:\n  - uid=1001 ip=1.1.1.1 label=role=prod"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q lacks %q", got, part)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "doesn't say who",
		"uid=1001":                    "grants nothing",
		"ip=1.1.1.1":                  "doesn't say who",
		"uid=root ip=1.1.1.1":         "uid: \"root\": want a number",
		"uid=9-1 name=a":              "want a number or a range",
		"uid=4294967296 name=a":       "want a number or a range",
		"gid=-1 name=a":               "gid: ",
		"uid=1 ip=1.1.1":              "ip: \"1.1.1\": want an address",
		"uid=1 ip=1.1.1.1/24":         "1.1.1.0/24 is meant?",
		"uid=1 ip=::ffff:1.1.1.0/120": "want an address",
		"uid=1 ip=fe80::1%eth0":       "want an address",
		"uid=1 label=role":            "label: \"role\": want KEY=VALUE",
		"cgroup=web name=a":           "want a path",
		"user=1 name=a":               "user: unknown: the keys are",
		"uid 1":                       "want words such as",
		"uid= name=a":                 "want words such as",
		"uid=1 name=" + strings.Repeat("a", 5000): "longer than",
	} {
		if _, err := ParseRules([]string{"uid=1 name=fine", text}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rule 2") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseRules(make([]string, maxRules+1)); err == nil {
		t.Error("too many rules are accepted")
	}
	if _, err := ParseRules([]string{"x", "y"}); err == nil || strings.Count(err.Error(), "rule ") != 2 {
		t.Errorf("not all mistakes are named: %v", err)
	}
}

func TestGate(t *testing.T) {
	var log strings.Builder
	registry := prometheus.NewRegistry()
	g, err := NewGate(nil, slog.New(slog.NewTextHandler(&log, nil)), registry)
	if err != nil {
		t.Fatal(err)
	}
	user, web := Client{UID: 1001, PID: 5}, Claims{Name: "web"}
	if g.Admit(user, web) == "" || testutil.ToFloat64(g.refused.WithLabelValues("name")) != 1 || !strings.Contains(log.String(), "uid=1001") {
		t.Errorf("not refused, counted and logged: %s", log.String())
	}
	g.Set(rules(t, "uid=1001 name=web"))
	if why := g.Admit(user, web); why != "" {
		t.Error(why)
	}
	if n, err := testutil.GatherAndCount(registry); err != nil || n != len(Kinds()) {
		t.Errorf("%d series, %v", n, err)
	}
}
