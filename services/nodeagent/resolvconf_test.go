package nodeagent

import "testing"

// TestResolvConf: the host's search list and options stay, behind the cluster's domain; lookups are tried more often than
// by default, unless the host says how often.
func TestResolvConf(t *testing.T) {
	const head = "# Name lookups of this program go to AppSwitch.\nnameserver 127.0.0.1\n"
	for _, c := range []struct{ host, want string }{
		{"", head + "search app.local\noptions attempts:5\n"},
		{"nameserver 10.0.0.2\nsearch a.example b.example\noptions ndots:5 edns0\n", head + "search app.local a.example b.example\noptions ndots:5 edns0 attempts:5\n"},
		{"domain a.example\noptions attempts:1\noptions rotate\n", head + "search app.local a.example\noptions attempts:1 rotate\n"},
	} {
		if got := string(resolvConf([]byte(c.host), "app.local.")); got != c.want {
			t.Errorf("%q: %q, want %q", c.host, got, c.want)
		}
	}
}
