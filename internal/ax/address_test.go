package ax

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckVirtual(t *testing.T) {
	for text, why := range map[string]string{
		"1.1.1.1": "", "10.0.0.1": "", "198.18.0.1": "",
		"2001:db8::1": "", "fd00::1": "", "64:ff9b::1.1.1.1": "", "fec0::1": "",
		"0.0.0.0": "not the address of one", "::": "not the address of one", "255.255.255.255": "not the address of one",
		"224.0.0.1": "not the address of one", "ff02::1": "not the address of one", "ff0e::1": "not the address of one",
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback",
		"169.254.1.1": "link-local", "fe80::1": "link-local", "febf::1": "link-local",
		"::ffff:1.1.1.1": "write 1.1.1.1", "::ffff:0:0": "IPv4-mapped",
		"fe80::1%eth0": "zone", "fd00::1%eth0": "zone",
	} {
		err := CheckVirtual(netip.MustParseAddr(text))
		if why == "" && err != nil || why != "" && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("CheckVirtual(%s): %v, want %q", text, err, why)
		}
	}
	if CheckVirtual(netip.Addr{}) == nil {
		t.Error("no address passes")
	}
}
