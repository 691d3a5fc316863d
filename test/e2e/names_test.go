//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// lostPacket is how long resolvers wait before they ask again. A lookup in which one packet is lost succeeds, later: that
// is a bug, too.
const lostPacket = 4 * time.Second

// TestNameLookups resolves one name with every resolver that programs are likely to carry: each one has its own way to
// talk to a nameserver.
func TestNameLookups(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --name web --", lab.GoProgram("goserver"), "-listen", ":80")
	lab.Serving("1.1.1.1:80", 1)
	musl, golang := lab.MuslProgram("getaddrinfo"), lab.GoProgram("golookup")
	const byPython = "import socket,sys; print(socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET)[0][4][0])"
	resolvers := []struct {
		name string
		args []string
	}{
		{"glibc getent", []string{"sh", "-c", "getent ahostsv4 $0 | cut -d' ' -f1"}},
		{"glibc gethostbyname", []string{"sh", "-c", "getent hosts $0 | cut -d' ' -f1"}},
		{"musl getaddrinfo", []string{musl}},
		{"go", []string{golang}},
		{"python", []string{lab.Need("python3"), "-c", byPython}},
		{"node", []string{lab.Need("node"), lab.Program("lookup.js")}},
		{"java", []string{lab.Need("java"), lab.Program("Lookup.java")}},
		{"curl", []string{"sh", "-c", "curl -sS -o /dev/null --max-time 10 -w '%{remote_ip}' http://$0/"}},
	}
	for _, r := range resolvers {
		// What the program takes to start, on a machine that may be busy.
		began := time.Now()
		lab.Run("ax run --", append(slices.Clone(r.args), "localhost")...)
		startup := time.Since(began)
		for _, name := range []string{"web", "web.appswitch.local"} {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				began := time.Now()
				out := harness.Lines(lab.In(t).Output("ax run --", append(slices.Clone(r.args), name)...))
				if len(out) == 0 || slices.ContainsFunc(out, func(s string) bool { return s != "1.1.1.1" }) {
					t.Errorf("%s resolves to %q, want 1.1.1.1", name, out)
				}
				if took := time.Since(began); took > lostPacket+2*startup {
					t.Errorf("took %v, and %v to start\n%s", took, startup, lab.Metrics("_dns"))
				}
			})
		}
	}
}

func TestDig(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --name web --", lab.GoProgram("goserver"), "-listen", ":80")
	lab.Serving("1.1.1.1:80", 1)
	dig := lab.Need("dig") + " +tries=1 +time=3 "
	equal(t, "A over UDP", lab.Output("ax run -- "+dig+"+short web.appswitch.local"), "1.1.1.1")
	equal(t, "A over TCP", lab.Output("ax run -- "+dig+"+short +tcp web.appswitch.local"), "1.1.1.1")
	equal(t, "A of the bare name", lab.Output("ax run -- "+dig+"+short web"), "1.1.1.1")
	equal(t, "PTR", lab.Output("ax run -- "+dig+"+short -x 1.1.1.1"), "web.appswitch.local.")
	aaaa := lab.Output("ax run -- " + dig + "AAAA web.appswitch.local")
	contains(t, "AAAA where there is only IPv4", aaaa, "status: NOERROR")
	contains(t, "AAAA where there is only IPv4", aaaa, "ANSWER: 0")
	none := lab.Output("ax run -- " + dig + "nosuch.appswitch.local")
	contains(t, "unknown name", none, "status: NXDOMAIN")
	contains(t, "unknown name", none, "SOA")
}

// TestNameGoesWithItsApp: once the last application of a name is gone, so is the name.
func TestNameGoesWithItsApp(t *testing.T) {
	lab := node(t)
	server := lab.Start("ax run --name web --", lab.GoProgram("goserver"), "-listen", ":80")
	dig := "ax run -- " + lab.Need("dig") + " +tries=1 +time=3 +short web.appswitch.local"
	lab.Eventually(runLimit, "the name resolves", func() error { return wantText(lab.Output(dig), true) })
	server.Stop()
	lab.Eventually(runLimit, "the name is gone", func() error { return wantText(lab.Output(dig), false) })
}

// TestHostResolvConf: whatever a managed program sees, the host's own file stays as it is, and without the override the
// program sees that one.
func TestHostResolvConf(t *testing.T) {
	lab := node(t)
	host := lab.Output("cat /etc/resolv.conf")
	inside := lab.Output("ax run -- cat /etc/resolv.conf")
	contains(t, "resolv.conf inside", inside, "nameserver")
	contains(t, "resolv.conf inside", inside, "appswitch.local")
	equal(t, "resolv.conf with --dns-override=false", lab.Output("ax run --dns-override=false -- cat /etc/resolv.conf"), host)
	equal(t, "the host's resolv.conf afterwards", lab.Output("cat /etc/resolv.conf"), host)
	if strings.Contains(host, "appswitch") {
		t.Errorf("the host's resolv.conf knows AppSwitch:\n%s", host)
	}
}
