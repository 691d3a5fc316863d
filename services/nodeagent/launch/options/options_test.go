package options_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"appswitch.io/services/nodeagent/launch/options"
)

func parse(args ...string) (options.Run, error) {
	environ := func(key string) string { return map[string]string{"AX_RUN_DIR": "/from/env"}[key] }
	return options.Parse(args, environ, func(name string) bool { return name == "curl" || name == "usr" })
}

// plain is what `ax run true` means.
func plain(change func(*options.Run)) options.Run {
	r := options.Run{NewNetns: true, DNSOverride: true, RunDir: "/from/env", Command: []string{"true"}}
	change(&r)
	return r
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args   string
		change func(*options.Run)
	}{
		{"true", func(*options.Run) {}},
		{"-- true", func(*options.Run) {}},
		{"true --name x -- -h", func(r *options.Run) { r.Command = []string{"true", "--name", "x", "--", "-h"} }},
		{"-- --name x", func(r *options.Run) { r.Command = []string{"--name", "x"} }},
		{"- true", func(r *options.Run) { r.Command = []string{"-", "true"} }},
		{"--ip 1.1.1.1 --name=web true", func(r *options.Run) { r.IP, r.Name = "1.1.1.1", "web" }},
		{"--name --ip true", func(r *options.Run) { r.Name = "--ip" }},
		{"--labels a=b,c=d=e --labels f= true", func(r *options.Run) {
			r.Labels = map[string]string{"a": "b", "c": "d=e", "f": ""}
		}},
		{"--user nobody --interface eth0 true", func(r *options.Run) { r.User, r.Interface = "nobody", "eth0" }},
		{"--new-netns=false true", func(r *options.Run) { r.NewNetns = false }},
		{"--new-netns true", func(*options.Run) {}},
		{"--no-new-netns true", func(r *options.Run) { r.NewNetns = false }},
		{"--no-new-netns=false true", func(*options.Run) {}},
		{"--dns-override=0 --init true", func(r *options.Run) { r.DNSOverride, r.Init = false, true }},
		{"--run-dir /x true", func(r *options.Run) { r.RunDir = "/x" }},
	} {
		got, err := parse(strings.Fields(tt.args)...)
		if want := plain(tt.change); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", tt.args, got, err, want)
		}
	}
	r, err := options.Parse([]string{"true"}, func(string) string { return "" }, nil)
	if err != nil || r.RunDir != "/var/run/appswitch" {
		t.Errorf("without AX_RUN_DIR: %+v, %v", r, err)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--ip", "1.1.1.1", "--help", "true"}} {
		if _, err := parse(args...); !errors.Is(err, options.ErrHelp) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for args, want := range map[string][]string{
		"":                                     {"no program given"},
		"--":                                   {"no program given"},
		"--ip 1.1.1.1":                         {"no program given"},
		"--ip":                                 {"--ip needs a value", "ADDRESS"},
		"--name= true":                         {"--name has an empty value"},
		"--labels role true":                   {"'role' is not KEY=VALUE"},
		"--labels =x true":                     {"'=x' is not KEY=VALUE"},
		"--labels a=1 --labels a=2 true":       {"a has two values, '1' and '2'"},
		"--new-netns=maybe true":               {"--new-netns=maybe", "true or false"},
		"--interface a/b true":                 {"--interface a/b", "15 characters"},
		"--interface sixteencharacter true":    {"15 characters"},
		"--interface eth0 --no-new-netns true": {"--interface eth0 needs the new network namespace"},
		"--expose 80:8080 true":                {"--expose 80:8080", "not part of this release"},
		"--curl -I 1.1.1.1":                    {"unknown option --curl", "ax run -- curl -I 1.1.1.1"},
		"--nmea web true":                      {"did you mean --name?"},
		"--label a=b true":                     {"did you mean --labels?"},
		"--dns=false true":                     {"unknown option --dns=false", "did you mean --dns-override?"},
		"--usr a b":                            {"did you mean --user?", "ax run -- usr a b"},
		"-x true":                              {"unknown option -x", "write -- before it"},
		"--frobnicate":                         {"unknown option --frobnicate", "ax run -- frobnicate"},
		"--zzz 1 2 3 4 5 6 7 8 9":              {"ax run -- zzz 1 2 3 4 5 6 7 8 ..."},
		"--no-new-nets true":                   {"unknown option --no-new-nets"},
	} {
		_, err := parse(strings.Fields(args)...)
		var usage *options.UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%s: %v", args, err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(usage.Message, w) {
				t.Errorf("%s: %q, want %q in it", args, usage.Message, w)
			}
		}
	}
}

func TestShorthand(t *testing.T) {
	for arg, want := range map[string]bool{
		"--labels": true, "--labels=a=b": true, "--ip": true, "--no-new-netns": true,
		"--run-dir": false, "--help": false, "--version": false, "-h": false, "run": false, "get": false, "--": false, "": false,
	} {
		if got := options.IsShorthand(arg); got != want {
			t.Errorf("IsShorthand(%q) = %v", arg, got)
		}
	}
}

func TestTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, o := range options.Table {
		if seen[o.Name] || o.Help == "" || (o.Kind != options.Bool) != (o.Arg != "") {
			t.Errorf("%+v is listed twice, or lacks its help or the name of its value", o)
		}
		seen[o.Name] = true
	}
}
