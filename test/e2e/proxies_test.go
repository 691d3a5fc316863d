//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// haproxyConf has one way in for each kind of socket that HAProxy can make.
const haproxyConf = `
global
    maxconn 512
    nbthread 4
    stats socket DIR/admin level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    retries 3
    option redispatch
resolvers names
    parse-resolv-conf
    hold valid 1s
frontend web
    bind :80
    bind :81 defer-accept tfo
    bind :82 shards by-thread
    bind :::83 v4v6
    bind 1.1.1.10:84
    http-response set-header X-Ends "%[src] %[dst]:%[dst_port]"
    default_backend pages
backend pages
    balance roundrobin
    option httpchk GET /id
    server a web-a:80 check inter 200ms resolvers names init-addr last,libc
    server b 1.1.1.2:80 check inter 200ms
listen plain
    mode tcp
    bind :90
    server a web-a:80
    server b 1.1.1.2:80
`

// TestHAProxy: a server and a client in one, of many threads, in front of two nginx, one by name and one by address.
func TestHAProxy(t *testing.T) {
	lab := node(t)
	a := lab.Start("ax run --ip 1.1.1.1 --name web-a --", nginx(lab, "a", "a")...)
	lab.Start("ax run --ip 1.1.1.2 --name web-b --", nginx(lab, "b", "b")...)
	lab.Serving("1.1.1.1:80", 1)
	lab.Serving("1.1.1.2:80", 1)
	conf := lab.WriteFile("haproxy/haproxy.cfg", strings.ReplaceAll(haproxyConf, "DIR", lab.Path("haproxy")))
	haproxy := lab.Start("ax run --ip 1.1.1.10 --name lb -- "+lab.Need("haproxy")+" -W -db -f", conf)
	for _, port := range []string{"80", "81", "83", "84", "90"} {
		lab.Serving("1.1.1.10:"+port, 1)
	}
	// One socket for each thread, all of one host port: they are one server.
	lab.Eventually(runLimit, "port 82 serves", func() error {
		servers, err := lab.Servers()
		for _, s := range servers {
			if s.ServiceAddress.String() == "1.1.1.10:82" {
				return err
			}
		}
		return fmt.Errorf("%v, %w", servers, err)
	})
	const curl = "ax run --ip 2.2.2.2 -- curl -sS --max-time 10 "
	for _, host := range []string{"1.1.1.10", "lb"} {
		for _, port := range []string{"80", "81", "82", "83", "84", "90"} {
			url := "http://" + host + ":" + port + "/id"
			got := map[string]int{}
			for _, id := range harness.Lines(lab.Output(curl + strings.Repeat(url+" ", 8) + "-H Connection:close")) {
				got[id]++
			}
			if got["a"] != 4 || got["b"] != 4 {
				t.Errorf("%s: answers %v, want 4 of each", url, got)
			}
			if port != "90" {
				ends := strings.ReplaceAll(lab.Output(curl+"-D - -o /dev/null "+url), "::ffff:", "")
				contains(t, "both ends of "+url, ends, "x-ends: 2.2.2.2 1.1.1.10:"+port)
			}
		}
	}

	// A reload hands the listening sockets to the next process, by descriptor; none of the requests fails. HAProxy ignores the
	// signal until the process before has ended.
	client := lab.GoProgram("goclient")
	load := lab.Start("ax run -- "+client, "-url", "http://lb/id", "-count", "3000", "-workers", "4", "-keepalive=false")
	for range 3 {
		before := strings.Count(haproxy.Stderr(), "Former worker")
		haproxy.Signal(syscall.SIGUSR2)
		lab.Eventually(runLimit, "the next process takes over", func() error {
			return wantText(strings.Repeat("x", strings.Count(haproxy.Stderr(), "Former worker")-before), true)
		})
	}
	if s := summarize(t, load); s.Failures != 0 || s.Answers["a"] == 0 || s.Answers["b"] == 0 {
		t.Errorf("requests over reloads: %+v", s)
	}

	a.Stop()
	url := "http://1.1.1.10/id"
	s := summarize(t, lab.Start("ax run -- "+client, "-url", url, "-count", "200", "-workers", "4", "-keepalive=false"))
	if s.Failures != 0 || s.Answers["b"] < 150 {
		t.Errorf("with one of two servers gone: %+v", s)
	}
}

// apache returns the command line of an Apache of the given multi-processing module. It serves www of the laboratory's
// directory, and passes /through/ on.
func apache(l *harness.Lab, t *testing.T, name, mpm, through string) []string {
	t.Helper()
	modules, _ := filepath.Glob("/usr/lib/apache2/modules/mod_mpm_event.so")
	if len(modules) == 0 {
		t.Fatal("Apache is missing: run scripts/provision.sh test, which `make test` does")
	}
	l.WriteFile("www/page", "hello\n")
	conf := l.WriteFile(name+"/apache.conf", strings.NewReplacer("DIR", l.Path(name), "WWW", l.Path("www"), "MPM", mpm,
		"MODULES", filepath.Dir(modules[0]), "THROUGH", through).Replace(`
ServerRoot DIR
PidFile DIR/pid
DefaultRuntimeDir DIR
Mutex file:DIR
ServerName localhost
User www-data
Group www-data
Listen 80
ErrorLog /dev/stderr
LoadModule mpm_MPM_module MODULES/mod_mpm_MPM.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule proxy_module MODULES/mod_proxy.so
LoadModule proxy_http_module MODULES/mod_proxy_http.so
StartServers 2
DocumentRoot WWW
LogFormat "%A:%{local}p %a %U" ends
CustomLog /dev/stdout ends
ProxyPass /through/ THROUGH
`))
	return []string{l.Need("apache2"), "-D", "FOREGROUND", "-f", conf}
}

// TestApache: a process for each connection (prefork), and threads in several processes (event); big files by sendfile and
// mmap, a restart without a lost request, and requests passed on to a name.
func TestApache(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.9 --name behind --", nginx(lab, "behind", "behind")...)
	lab.Serving("1.1.1.9:80", 1)
	want := writeRandom(t, lab.Path("www", "big"), 20<<20)
	client := lab.GoProgram("goclient")
	for i, mpm := range []string{"event", "prefork"} {
		t.Run(mpm, func(t *testing.T) {
			lab := lab.In(t)
			ip, name := fmt.Sprintf("1.1.1.%d", i+1), "apache-"+mpm
			server := lab.Start("ax run --ip "+ip+" --name "+name+" --", apache(lab, t, name, mpm, "http://behind/")...)
			lab.Serving(ip+":80", 1)
			for _, host := range []string{ip, name} {
				url := "http://" + host
				equal(t, "a page", lab.Output("ax run --ip 2.2.2.2 -- curl -sS --max-time 10 "+url+"/page"), "hello")
				equal(t, "through the proxy", lab.Output("ax run -- curl -sS --max-time 10 "+url+"/through/id"), "behind")
				sum, _, _ := strings.Cut(lab.Output("ax run -- sh -c", "curl -sS --max-time 50 "+url+"/big | sha256sum"), " ")
				equal(t, "checksum of a big file", sum, want)
			}
			contains(t, "the access log", server.Stdout(), ip+":80 2.2.2.2 /page")
			load := lab.Start("ax run -- "+client, "-url", "http://"+name+"/page", "-count", "1500", "-workers", "4", "-keepalive=false")
			for range 2 {
				before := strings.Count(server.Stderr(), "resuming normal operations")
				server.Signal(syscall.SIGUSR1) // apachectl graceful
				lab.Eventually(runLimit, "the restart", func() error {
					return wantText(strings.Repeat("x", strings.Count(server.Stderr(), "resuming normal operations")-before), true)
				})
			}
			if s := summarize(t, load); s.Failures != 0 || s.Answers["hello"] != 1500 {
				t.Errorf("requests over restarts: %+v", s)
			}
		})
	}
}
