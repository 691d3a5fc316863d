package house

import (
	"slices"
	"strings"
	"testing"
)

// services are the modules that talk to one another by gRPC only.
var services = []string{"registry", "resolver", "router", "nodeagent", "gateway"}

// importRule says what the packages below one path may import. Paths of ours are written without "appswitch.io/".
type importRule struct {
	scope  string   // this package and those below it; "" is every package
	except []string // packages in the scope that the rule does not bind
	forbid []string // these and what lies below them; "!std" is everything outside the standard library
	allow  []string // exceptions from forbid
	tests  bool     // the rule binds test files as well
	why    string
}

func importRules() []importRule {
	rules := []importRule{
		{
			scope:  "internal/ax",
			forbid: []string{"!std", "net", "os", "io", "syscall", "log", "time/tzdata", "database/sql"},
			allow:  []string{"net/netip"},
			why:    "the vocabulary is values without I/O: it imports nothing but pure parts of the standard library",
		},
		{
			scope:  "internal/route",
			forbid: []string{"!std", "net", "os", "io", "syscall", "log"},
			allow:  []string{"net/netip", "appswitch.io/internal/ax"},
			why:    "decisions are pure, so that agent, gateway and Explain share one implementation",
		},
		{
			scope:  "services/nodeagent/launch",
			forbid: []string{"!std"},
			allow:  []string{"appswitch.io/services/nodeagent/launch", "golang.org/x/sys/unix"},
			why:    "`ax run` starts in milliseconds: what it runs through must not load gRPC, etcd or Serf",
		},
		{
			scope:  "",
			except: []string{"internal/telemetry", "test/e2e"}, // which plays the collector
			forbid: []string{"go.opentelemetry.io"},
			tests:  true,
			why:    "services trace with opentracing-go; only internal/telemetry knows OpenTelemetry and the bridge",
		},
		{
			scope:  "internal",
			forbid: []string{"appswitch.io/services", "appswitch.io/cmd", "appswitch.io/test"},
			tests:  true,
			why:    "imports go cmd -> services -> internal -> proto/gen, never back",
		},
		{
			scope:  "proto",
			forbid: []string{"appswitch.io/internal", "appswitch.io/services", "appswitch.io/cmd", "appswitch.io/test"},
			tests:  true,
			why:    "contracts stand alone",
		},
		{
			scope:  "services",
			forbid: []string{"appswitch.io/cmd", "appswitch.io/test"},
			tests:  true,
			why:    "imports go cmd -> services -> internal -> proto/gen, never back",
		},
		{
			scope:  "cmd",
			except: []string{"cmd/axctl/internal/daemon"},
			forbid: []string{"appswitch.io/services"},
			allow:  []string{"appswitch.io/services/nodeagent/launch"},
			why:    "only cmd/axctl/internal/daemon assembles services; the command line talks to them by gRPC",
		},
		{
			scope:  "test",
			forbid: []string{"appswitch.io/services", "appswitch.io/cmd", "appswitch.io/internal"},
			tests:  true,
			why:    "whole-system tests see what a user sees: binaries, command line, REST",
		},
	}
	for _, service := range services {
		others := make([]string, 0, len(services))
		for _, other := range services {
			if other != service {
				others = append(others, modulePrefix+"services/"+other)
			}
		}
		rules = append(rules, importRule{
			scope:  "services/" + service,
			forbid: others,
			tests:  true,
			why:    "a service takes a generated client, or an interface it declares itself; it never imports another one",
		})
	}
	return rules
}

func (r importRule) binds(pkg string) bool {
	if r.scope != "" && !within(pkg, r.scope) {
		return false
	}
	return !slices.ContainsFunc(r.except, func(e string) bool { return within(pkg, e) })
}

// forbids says whether the rule forbids importing path; std holds the standard library.
func (r importRule) forbids(path string, std map[string]bool) bool {
	if slices.ContainsFunc(r.allow, func(a string) bool { return within(path, a) }) {
		return false
	}
	return slices.ContainsFunc(r.forbid, func(f string) bool {
		return f == "!std" && !std[path] || within(path, f)
	})
}

func TestImportDirection(t *testing.T) {
	std := standardLibrary(t)
	rules := importRules()
	for _, pkg := range workspace(t) {
		for _, rule := range rules {
			if !rule.binds(pkg.path()) {
				continue
			}
			imports := slices.Clone(pkg.Imports)
			if rule.tests {
				imports = slices.Concat(imports, pkg.TestImports, pkg.XTestImports)
			}
			slices.Sort(imports)
			for _, path := range slices.Compact(imports) {
				if path != pkg.ImportPath && rule.forbids(path, std) {
					t.Errorf("%s imports %s: %s", pkg.path(), path, rule.why)
				}
			}
		}
	}
}

// TestImportRulesBite makes sure that the table refuses what it is there to refuse.
func TestImportRulesBite(t *testing.T) {
	std := standardLibrary(t)
	cases := []struct {
		pkg, path string
		forbidden bool
	}{
		{"internal/ax", "fmt", false},
		{"internal/ax", "net/netip", false},
		{"internal/ax", "net", true},
		{"internal/ax", "net/http", true},
		{"internal/ax", "appswitch.io/proto/gen/appswitch/type/v1", true},
		{"internal/axpb", "appswitch.io/proto/gen/appswitch/type/v1", false},
		{"internal/route", "appswitch.io/internal/ax", false},
		{"internal/route", "appswitch.io/internal/axpb", true},
		{"internal/route", "google.golang.org/grpc", true},
		{"internal/rpc", "appswitch.io/services/router", true},
		{"services/router/internal/build", "appswitch.io/services/registry", true},
		{"services/router/internal/build", "appswitch.io/services/router/internal/server", false},
		{"services/router", "go.opentelemetry.io/otel", true},
		{"internal/telemetry", "go.opentelemetry.io/otel", false},
		{"test/e2e", "go.opentelemetry.io/proto/otlp/trace/v1", false},
		{"services/nodeagent/launch/wire", "encoding/binary", false},
		{"services/nodeagent/launch/holder", "appswitch.io/services/nodeagent/launch/wire", false},
		{"services/nodeagent/launch", "google.golang.org/grpc", true},
		{"cmd/axctl/internal/cli", "appswitch.io/services/registry", true},
		{"cmd/axctl/internal/daemon", "appswitch.io/services/registry", false},
		{"test/e2e", "appswitch.io/services/registry", true},
	}
	for _, c := range cases {
		got := slices.ContainsFunc(importRules(), func(r importRule) bool {
			return r.binds(c.pkg) && r.forbids(c.path, std)
		})
		if got != c.forbidden {
			t.Errorf("%s imports %s: forbidden = %v, want %v", c.pkg, c.path, got, c.forbidden)
		}
	}
}

func standardLibrary(t *testing.T) map[string]bool {
	t.Helper()
	packages, err := list("std")
	if err != nil {
		t.Fatal(err)
	}
	std := make(map[string]bool, len(packages))
	for _, p := range packages {
		if !strings.HasPrefix(p.ImportPath, "vendor/") {
			std[p.ImportPath] = true
		}
	}
	return std
}
