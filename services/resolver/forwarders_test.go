package resolver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestForwardersChange(t *testing.T) {
	host := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}
	self := netip.MustParseAddrPort("10.0.2.15:53")
	f := newForwarders(func(a netip.AddrPort) bool { return a == self }, func() []netip.AddrPort { return host })
	s := &Service{forwarders: f}
	apply := func(value string) error {
		cfg, fs := DefaultConfig(), pflag.NewFlagSet("", pflag.ContinueOnError)
		cfg.Flags(fs)
		if err := fs.Set("dns-servers", value); err != nil {
			t.Fatal(err)
		}
		return s.Live()["dns-servers"](fs)
	}
	if got := f.servers(); !slices.Equal(got, host) {
		t.Errorf("at first: %v", got)
	}
	for _, tc := range []struct{ value, err, want string }{
		{"10.0.0.1,10.0.0.2:5353", "", "[10.0.0.1:53 10.0.0.2:5353]"},
		{"10.0.2.15", "this resolver itself", "[10.0.0.1:53 10.0.0.2:5353]"},
		{"nowhere", "want IP or IP:port", "[10.0.0.1:53 10.0.0.2:5353]"},
		{"", "", "[192.0.2.1:53]"},
	} {
		err := apply(tc.value)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: %v, want %q", tc.value, err, tc.err)
		}
		var got []string
		for _, a := range f.servers() {
			got = append(got, a.String())
		}
		if "["+strings.Join(got, " ")+"]" != tc.want {
			t.Errorf("%q: %v, want %s", tc.value, got, tc.want)
		}
	}
	if (&Service{}).Live() != nil {
		t.Error("without DNS there is something to change")
	}
}
