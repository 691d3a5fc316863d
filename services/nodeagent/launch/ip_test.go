package launch

import (
	"bytes"
	"net/netip"
	"testing"
)

// FuzzParseIP holds the parser against netip's.
func FuzzParseIP(f *testing.F) {
	for _, s := range []string{
		"1.2.3.4", "0.0.0.0", "255.255.255.255", "256.1.1.1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1..2.3", "", ".",
		"::", "::1", "1::", "fe80::1", "2001:db8:1:2:3:4:5:6", "2001:db8::1:2:3:4:5:6", "1:2:3:4:5:6:7::", "::1.2.3.4",
		"1:2:3:4:5:6:1.2.3.4", "::1.2.3.4:1", ":::", "1::2::3", "12345::", "g::", ":1", "1:", "::1.2.3", "1:2:3:4:5:6:7:1.2.3.4", "0.0.0.0::",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := netip.ParseAddr(s)
		ok := err == nil && want.Zone() == ""
		got, gotOK := parseIP(s)
		if gotOK != ok || ok && !bytes.Equal(got, want.AsSlice()) {
			t.Errorf("parseIP(%q) = %v, %v; want %v", s, got, gotOK, want)
		}
	})
}
