package daemon

import (
	"errors"
	"slices"
	"testing"

	"appswitch.io/internal/config"
	daemons "appswitch.io/internal/service"
	"github.com/spf13/pflag"
)

func TestMergeSetsBoth(t *testing.T) {
	var a, b string
	var only int
	one, two := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	one.StringVar(&a, "dns-domain", "appswitch.local", "")
	two.StringVar(&b, "dns-domain", "appswitch.local", "")
	two.IntVar(&only, "only", 1, "")
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	merge(fs, one)
	merge(fs, two)
	if err := fs.Parse([]string{"--dns-domain=example.org", "--only=2"}); err != nil {
		t.Fatal(err)
	}
	if a != "example.org" || b != "example.org" || only != 2 {
		t.Errorf("got %q, %q, %d", a, b, only)
	}
	if v := fs.Lookup("dns-domain").Value.String(); v != "example.org" {
		t.Errorf("the flag says %q", v)
	}
}

func TestLaterFlagsAreErrors(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.Int("gossip-port", 7946, "") // a service has it by now
	AddUnavailable(fs, later...)
	if err := fs.Parse([]string{"--gossip-port=1"}); err != nil {
		t.Errorf("--gossip-port: %v", err)
	}
	for _, args := range [][]string{{"--neighbors", "10.0.0.1"}, {"--egress-gateway"}, {"--federation-gateway-ip=eth0"}} {
		if err := fs.Parse(args); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v: got %v", args, err)
		}
	}
}

// TestDaemonsPassOverTheOptionsOfOthers: one environment, and one file, serve `ax daemon` and the separate daemons.
func TestDaemonsPassOverTheOptionsOfOthers(t *testing.T) {
	all, everywhere := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	o := DefaultOptions()
	o.Flags(all)
	o.TLS.Flags(everywhere)
	o.Telemetry.Flags(everywhere)
	everywhere.String(config.FileFlag, "", "")
	all.VisitAll(func(f *pflag.Flag) {
		if v := config.Variable(f.Name); everywhere.Lookup(f.Name) == nil && !slices.Contains(daemons.SharedVariables, v) {
			t.Errorf("service.SharedVariables lacks %s: a separate daemon would refuse it", v)
		}
	})
}
