//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// The addresses of these tests. The laboratory's machine has no IPv6 address but loopback and link-local.
const (
	web6    = "2001:db8::1"
	client6 = "2001:db8::2"
)

// fetchers are HTTP clients of several kinds, to be given a URL.
func fetchers(lab *harness.Lab) map[string]string {
	out := clients(lab)
	out["curl"] += " -g"
	out["go"] = lab.GoProgram("goclient") + " -count 1 -url"
	return out
}

// TestIPv6Servers: servers as they are installed are reached at a virtual IPv6 address and its name, by clients as they are,
// with an address of their own or without.
func TestIPv6Servers(t *testing.T) {
	lab := node(t)
	page := lab.WriteFile("site/id", "up\n")
	servers := []struct {
		name string
		args []string
		port int
	}{
		{"nginx", nginx(lab, "nginx", "up"), 80},
		{"python", []string{lab.Need("python3"), "-m", "http.server", "--bind", "::", "--directory", strings.TrimSuffix(page, "/id"), "8001"}, 8001},
		{"python4", []string{lab.Need("python3"), "-m", "http.server", "--directory", strings.TrimSuffix(page, "/id"), "8002"}, 8002},
		{"node", []string{lab.Need("node"), lab.Program("server.js"), "8003", "up"}, 8003},
		{"go", []string{lab.GoProgram("goserver"), "-listen", ":8004", "-id", "up"}, 8004},
		{"go6", []string{lab.GoProgram("goserver"), "-listen", "[" + web6 + "4]:8005", "-id", "up"}, 8005},
	}
	fetch := fetchers(lab)
	for i, s := range servers {
		ip := fmt.Sprintf("%s%d", web6, i)
		if s.name == "go6" {
			ip = web6 + "4"
		}
		lab.Start("ax run --ip "+ip+" --name "+s.name+" --", s.args...)
		lab.Serving(fmt.Sprintf("[%s]:%d", ip, s.port), 1)
		for client, line := range fetch {
			for _, host := range []string{"[" + ip + "]", s.name} {
				url := fmt.Sprintf("http://%s:%d/", host, s.port)
				if s.name == "nginx" || strings.HasPrefix(s.name, "python") {
					url += "id"
				}
				for _, as := range []string{"", "--ip " + client6} {
					out := lab.Output("ax run " + as + " -- " + line + " " + url)
					contains(t, fmt.Sprintf("%s asked by %s %s: %s", s.name, client, as, url), out, "up")
				}
			}
		}
	}
}

// where runs family.py ask and returns what it says: the client's address, its peer's, and what the server sees of both.
// Ports that the kernel chose are written as PORT.
func where(lab *harness.Lab, run, address, more string) string {
	out := lab.Output(run + " " + lab.Need("python3") + " " + lab.Program("family.py") + " ask " + address + " " + more)
	return regexp.MustCompile(`:[0-9]{5}\b`).ReplaceAllString(strings.Join(strings.Fields(out), " "), ":PORT")
}

// TestIPv6Addresses: what the socket calls of both ends show, for each pair of kinds of server and client.
func TestIPv6Addresses(t *testing.T) {
	lab := node(t)
	serve := lab.Need("python3") + " " + lab.Program("family.py") + " serve "
	for _, s := range []struct{ ip, args, at string }{
		{"2001:db8::10", ":: 80", "[2001:db8::10]:80"},
		{"2001:db8::11", ":: 80 only6", "[2001:db8::11]:80"},
		{"2001:db8::12", "2001:db8::12 80", "[2001:db8::12]:80"},
		{"1.1.1.1", "0.0.0.0 80", "1.1.1.1:80"},
		{"1.1.1.2", ":: 80", "1.1.1.2:80"},
		{"2001:db8::13", "0.0.0.0 8013", "10.77.0.1:8013"},
	} {
		lab.Start("ax run --ip "+s.ip+" --", strings.Fields(serve+s.args)...)
		lab.Serving(s.at, 1)
	}
	lab.Output("ax create vservice --ip 2001:db8::20 --backends 1.1.1.1,2001:db8::10 --ports 80 --lbtype RoundRobin mixed6")
	lab.Output("ax create vservice --ip 2001:db8::21 --backends 1.1.1.1 four")
	lab.Output("ax create vservice --ip 1.1.1.21 --backends 2001:db8::11 six")
	const six, four, none = "ax run --ip 2001:db8::2 --", "ax run --ip 2.2.2.2 --", "ax run --"
	for _, c := range []struct{ name, run, to, want string }{
		{"IPv6", six, "2001:db8::10 80", "[2001:db8::2]:PORT [2001:db8::10]:80 [2001:db8::10]:80 [2001:db8::2]:PORT"},
		{"IPv6 only", six, "2001:db8::11 80", "[2001:db8::2]:PORT [2001:db8::11]:80 [2001:db8::11]:80 [2001:db8::2]:PORT"},
		{"IPv6 only, both", six, "2001:db8::11 80 only6", "[2001:db8::2]:PORT [2001:db8::11]:80 [2001:db8::11]:80 [2001:db8::2]:PORT"},
		{"its own address", six, "2001:db8::12 80 only6", "[2001:db8::2]:PORT [2001:db8::12]:80 [2001:db8::12]:80 [2001:db8::2]:PORT"},
		{"IPv6 to IPv4", six, "1.1.1.1 80", "10.77.0.1:PORT 1.1.1.1:80 1.1.1.1:80 10.77.0.1:PORT"},
		{"IPv6 to IPv4, mapped", six, "::ffff:1.1.1.1 80", "[::ffff:10.77.0.1]:PORT [::ffff:1.1.1.1]:80 1.1.1.1:80 10.77.0.1:PORT"},
		{"IPv6 to dual stack", six, "1.1.1.2 80", "10.77.0.1:PORT 1.1.1.2:80 [::ffff:1.1.1.2]:80 [::ffff:10.77.0.1]:PORT"},
		{"IPv4 to dual stack", four, "1.1.1.2 80", "2.2.2.2:PORT 1.1.1.2:80 [::ffff:1.1.1.2]:80 [::ffff:2.2.2.2]:PORT"},
		{"IPv4 to IPv6", four, "2001:db8::11 80", "[::ffff:2.2.2.2]:PORT [2001:db8::11]:80 [2001:db8::11]:80 [::ffff:2.2.2.2]:PORT"},
		{"no address to IPv6", none, "2001:db8::10 80", "[::ffff:10.77.0.1]:PORT [2001:db8::10]:80 [2001:db8::10]:80 [::ffff:10.77.0.1]:PORT"},
		{"IPv4 socket of IPv6", four, "10.77.0.1 8013", "2.2.2.2:PORT 10.77.0.1:8013 10.77.0.1:8013 2.2.2.2:PORT"},
		{"IPv4 behind IPv6", six, "2001:db8::21 80", "[2001:db8::2]:PORT [2001:db8::21]:80 1.1.1.1:80 10.77.0.1:PORT"},
		{"IPv6 behind IPv4", four, "1.1.1.21 80", "2.2.2.2:PORT 1.1.1.21:80 [::ffff:1.1.1.21]:80 [::ffff:2.2.2.2]:PORT"},
	} {
		equal(t, c.name, where(lab, c.run, c.to, ""), c.want)
	}
	seen := map[string]int{}
	for range 4 {
		seen[where(lab, six, "2001:db8::20 80", "")]++
	}
	if len(seen) != 2 || seen["[2001:db8::2]:PORT [2001:db8::20]:80 [2001:db8::20]:80 [2001:db8::2]:PORT"] != 2 {
		t.Errorf("four connections to a virtual service with a backend of each family: %v", seen)
	}
	r := lab.Run(six + " " + lab.Need("python3") + " " + lab.Program("family.py") + " ask ::ffff:1.1.1.1 80 only6")
	contains(t, "IPv4-mapped address on a socket that takes IPv6 alone", r.Stderr, "Network is unreachable")
	r = lab.Run(six + " " + lab.Need("python3") + " " + lab.Program("family.py") + " serve 2001:db8::3 80")
	contains(t, "bind to another's address", r.Stderr, "Cannot assign requested address")
}

// TestIPv6Names: the kinds of addresses of a name, through the resolvers that programs carry.
func TestIPv6Names(t *testing.T) {
	lab := node(t)
	server := lab.GoProgram("goserver")
	lab.Start("ax run --ip "+web6+" --name six --", nginx(lab, "nginx", "six")...)
	lab.Start("ax run --ip 1.1.1.1 --name four --", server, "-listen", ":80")
	lab.Start("ax run --ip 2001:db8::5 --name both --", server, "-listen", ":80")
	lab.Start("ax run --ip 1.1.1.5 --name both --", server, "-listen", ":80")
	for _, at := range []string{"[" + web6 + "]:80", "1.1.1.1:80", "[2001:db8::5]:80", "1.1.1.5:80", harness.NodeIP + ":80"} {
		lab.Serving(at, 1)
	}
	python := lab.Need("python3") + " " + lab.Program("family.py") + " names "
	const four4, six6 = "AF_INET 1.1.1.1", "AF_INET6 " + web6
	for _, c := range []struct{ name, run, args, want string }{
		{"IPv6 name", "ax run --", "six", six6},
		{"IPv4 name", "ax run --", "four", four4},
		{"both", "ax run --", "both", "AF_INET 1.1.1.5\nAF_INET6 2001:db8::5"},
		{"IPv6 name, of the families that I have", "ax run --ip " + client6 + " --", "six AI_ADDRCONFIG", six6},
		{"IPv4 name, of the families that I have", "ax run --ip " + client6 + " --", "four AI_ADDRCONFIG", four4},
		{"both, of the families that I have", "ax run --ip " + client6 + " --", "both AI_ADDRCONFIG", "AF_INET 1.1.1.5\nAF_INET6 2001:db8::5"},
		{"both, without IPv6", "ax run --ip 2.2.2.2 --", "both AI_ADDRCONFIG", "AF_INET 1.1.1.5"},
	} {
		equal(t, "glibc: "+c.name, lab.Output(c.run+" "+python+c.args), c.want)
	}
	for name, program := range map[string]string{"musl": lab.MuslProgram("getaddrinfo") + " -6", "go": lab.GoProgram("golookup") + " -network ip6"} {
		for host, want := range map[string]string{"six": web6, "both": "2001:db8::5", "six.appswitch.local": web6} {
			equal(t, name+": "+host, lab.Output("ax run --ip "+client6+" -- "+program+" "+host), want)
		}
		if r := lab.Run("ax run --ip " + client6 + " -- " + program + " four"); r.Code == 0 {
			t.Errorf("%s finds an IPv6 address of an IPv4 name: %s", name, r.Stdout)
		}
	}
	dig := "ax run -- " + lab.Need("dig") + " +tries=1 +time=3 "
	equal(t, "AAAA", lab.Output(dig+"+short AAAA six.appswitch.local"), web6)
	none := lab.Output(dig + "A six.appswitch.local")
	contains(t, "A where there is only IPv6", none, "status: NOERROR")
	contains(t, "A where there is only IPv6", none, "ANSWER: 0")
	equal(t, "PTR", lab.Output(dig+"+short -x "+web6), "six.appswitch.local.")
	equal(t, "SRV", lab.Output(dig+"+short SRV _80._tcp.six.appswitch.local"), "0 1 80 six.appswitch.local.")
	equal(t, "the resolver at an IPv6 address", lab.Output(dig+"+short AAAA six @::1"), web6)
}

// TestIPv6Tables: the command line and REST write and read IPv6 addresses.
func TestIPv6Tables(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip "+web6+" --name web --", lab.GoProgram("goserver"), "-listen", ":80")
	lab.Start("ax run --ip 1.1.1.1 --name four --", lab.GoProgram("goserver"), "-listen", ":80")
	lab.Serving("["+web6+"]:80", 1)
	lab.Serving("1.1.1.1:80", 1)
	for kind, column := range map[string]string{"apps": "APPIP", "servers": "SERVICEADDR", "sockets": "BINDIP"} {
		lines := harness.Lines(lab.Output("ax get " + kind))
		at := strings.Index(lines[0], column)
		for _, line := range lines[1:] {
			if at < 1 || len(line) <= at || line[at-1] != ' ' || line[at] == ' ' {
				t.Errorf("ax get %s does not line up at %s:\n%s", kind, column, strings.Join(lines, "\n"))
				break
			}
		}
	}
	contains(t, "create", lab.Output("ax create vservice --ip 2001:db8::9 --backends "+web6+"=3,1.1.1.1 front"), "with IP '2001:db8::9'")
	contains(t, "vservices", lab.Output("ax get vservices"), "2001:db8::9")
	contains(t, "REST", lab.Output("curl -sS http://127.0.0.1:6664/v1/vservices/front"), `"2001:db8::9"`)
	contains(t, "REST", lab.Output("curl -sS http://127.0.0.1:6664/v1/servers"), `"ip":"2001:db8::1"`)
	contains(t, "explain", lab.Output("ax explain --to ["+web6+"]:80"), "["+web6+"]:80")
	contains(t, "explain by app", lab.Output("ax explain --from four --to [2001:db8::9]:80"), "allow")
	contains(t, "explain by name", lab.Output("ax explain --to web:80"), "allow")
	contains(t, "the virtual service", lab.Output("ax run -- curl -g -sS --max-time 10 http://[2001:db8::9]/"), "goserver")
	contains(t, "exec", lab.Output("ax exec web -- curl -g -sS --max-time 10 http://["+web6+"]/whoami"), "remote=["+web6+"]")
	contains(t, "observe", lab.Output("ax observe --last 50 --to ["+web6+"]:80 --follow=false"), "["+web6+"]:80")
	for ip, why := range map[string]string{
		"fe80::1": "link-local", "::1": "loopback", "::": "not the address of one service", "ff02::1": "not the address of one service",
		"::ffff:1.1.1.1": "write 1.1.1.1", "2001:db8::g": "want an IPv4 or IPv6 address",
	} {
		if r := lab.Run("ax run --ip " + ip + " true"); r.Code == 0 || !strings.Contains(r.Stderr, why) {
			t.Errorf("--ip %s: exit status %d, %q; want %q", ip, r.Code, r.Stderr, why)
		}
	}
	contains(t, "lo", lab.Output("ax run --ip "+client6+" -- ip -o addr show dev lo"), client6+"/128")
	contains(t, "device", lab.Output("ax run --ip "+client6+" --interface eth7 -- ip -o addr show dev eth7"), client6+"/128")
}

// TestIPv6Rules: labels and policies hold, an address once used stays virtual, and a host port is no open door.
func TestIPv6Rules(t *testing.T) {
	lab := node(t)
	server := lab.Start("ax run --ip "+web6+" --labels role=prod --name web --", nginx(lab, "nginx", "up")...)
	at := lab.Serving("["+web6+"]:80", 1)[0]
	const url, get = "http://[" + web6 + "]/id", " curl -g -sS --max-time 10 "
	equal(t, "the same label", lab.Output("ax run --labels role=prod --"+get+url), "up")
	refused(t, lab, "another label", "ax run --labels role=test --", "-g "+url)
	refused(t, lab, "another label, by its host port", "ax run --labels role=test --", "http://"+at.HostAddress.String()+"/id")
	if r := lab.Run("curl -sS --max-time 10 http://" + at.HostAddress.String() + "/id"); r.Code == 0 {
		t.Errorf("the host port answers a program outside AppSwitch: %s", r.Stdout)
	}
	policy(t, lab, "outside", "--action deny --to-cidr 2001:db8:7::/48")
	contains(t, "policy", lab.Output("ax explain --to [2001:db8:7::1]:443"), "policy-deny: outside")
	contains(t, "elsewhere", lab.Output("ax explain --to [2001:db8:8::1]:443"), "passthrough")
	server.Stop()
	lab.Eventually(runLimit, "the server is gone", func() error {
		all, err := lab.Servers()
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("there are %v", all)
		}
		return err
	})
	refused(t, lab, "an address that was used", "ax run --", "-g "+url)
}

// TestIPv6Balance: two servers on one IPv6 address share the connections, and each leaves when it ends.
func TestIPv6Balance(t *testing.T) {
	lab := node(t)
	first := lab.Start("ax run --ip "+web6+" --name web --", nginx(lab, "one", "one")...)
	lab.Start("ax run --ip "+web6+" --name web --", nginx(lab, "two", "two")...)
	lab.Serving("["+web6+"]:80", 2)
	s := summarize(t, lab.Start("ax run --ip "+client6+" --", lab.GoProgram("goclient"), "-count", "100", "-url", "http://["+web6+"]/id"))
	if s.Failures != 0 || s.Answers["one"] < 20 || s.Answers["two"] < 20 {
		t.Errorf("%+v", s)
	}
	first.Stop()
	lab.Serving("["+web6+"]:80", 1)
	s = summarize(t, lab.Start("ax run --", lab.GoProgram("goclient"), "-count", "20", "-url", "http://web/id"))
	if s.Failures != 0 || s.Answers["two"] != 20 {
		t.Errorf("%+v", s)
	}
}

// TestIPv6AgentKilled: IPv6 listeners of all kinds serve on while the daemon is killed and when it is back.
func TestIPv6AgentKilled(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	lab.Start("ax run --ip "+web6+" --name web --", nginx(lab, "nginx", "up")...)
	lab.Serving("["+web6+"]:80", 1)
	serve := lab.Need("python3") + " " + lab.Program("family.py") + " serve "
	lab.Start("ax run --ip 2001:db8::11 --", strings.Fields(serve+":: 81 only6")...)
	lab.Serving("[2001:db8::11]:81", 1)
	progress := lab.Path("started")
	load := lab.Start("ax run --ip "+client6+" --", lab.GoProgram("goclient"), "-count", "4000", "-workers", "2", "-url", "http://["+web6+"]/id", "-progress", progress)
	lab.Eventually(runLimit, "load", func() error { _, err := os.Stat(progress); return err })
	for range 3 {
		daemon.Kill()
		time.Sleep(300 * time.Millisecond)
		daemon.Start()
		lab.Ready()
	}
	if s := summarize(t, load); s.Failures != 0 || s.Answers["up"] != s.Requests {
		t.Errorf("%+v", s)
	}
	lab.Serving("["+web6+"]:80", 1)
	lab.Serving("[2001:db8::11]:81", 1)
	lab.Serving(harness.NodeIP+":80", 1)
	equal(t, "IPv6 only, after a restart", where(lab, "ax run --ip "+client6+" --", "2001:db8::11 81", "only6"),
		"[2001:db8::2]:PORT [2001:db8::11]:81 [2001:db8::11]:81 [2001:db8::2]:PORT")
}

// TestIPv6HostWithoutIPv6: virtual IPv6 addresses need none on the host.
func TestIPv6HostWithoutIPv6(t *testing.T) {
	lab := harness.New(t)
	lab.Output("sh -c", "for i in all default lo; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
	lab.StartDaemon()
	lab.Start("ax run --ip "+web6+" --name web --", nginx(lab, "nginx", "up")...)
	lab.Serving("["+web6+"]:80", 1)
	for name, client := range fetchers(lab) {
		contains(t, name, lab.Output("ax run --ip "+client6+" -- "+client+" http://["+web6+"]/id"), "up")
	}
	equal(t, "by name", lab.Output("ax run -- curl -sS --max-time 10 http://web/id"), "up")
}
