//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestHTTPServers runs servers of many makes on virtual addresses, and gets the same page from each, by address and by
// name, with clients of many makes.
func TestHTTPServers(t *testing.T) {
	lab := node(t)
	www := lab.Path("www")
	lab.WriteFile("www/page", "hello\n")
	servers := []struct {
		name string
		port int
		args func(l *harness.Lab) []string
	}{
		{"nginx", 80, func(l *harness.Lab) []string { return nginx(l, "nginx", "hello") }},
		{"python", 8000, func(l *harness.Lab) []string {
			return []string{l.Need("python3"), "-m", "http.server", "8000", "--directory", www}
		}},
		{"go", 8080, func(l *harness.Lab) []string {
			return []string{l.GoProgram("goserver"), "-listen", ":8080", "-id", "hello"}
		}},
		{"node", 3000, func(l *harness.Lab) []string {
			return []string{l.Need("node"), l.Program("server.js"), "3000", "hello"}
		}},
		{"java", 9090, func(l *harness.Lab) []string {
			return []string{l.Need("java"), l.Program("Server.java"), "9090", "hello"}
		}},
	}
	path := map[string]string{"nginx": "/page", "python": "/page", "go": "/", "node": "/", "java": "/"}
	for i, server := range servers {
		t.Run(server.name, func(t *testing.T) {
			lab := lab.In(t)
			ip := fmt.Sprintf("1.1.1.%d", i+1)
			lab.Start("ax run --ip "+ip+" --name "+server.name+"-server --", server.args(lab)...)
			lab.Serving(fmt.Sprintf("%s:%d", ip, server.port), 1)
			for _, host := range []string{ip, server.name + "-server", server.name + "-server.appswitch.local"} {
				url := fmt.Sprintf("http://%s:%d%s", host, server.port, path[server.name])
				for client, line := range clients(lab) {
					equal(t, client+" "+url, lab.Output("ax run -- "+line+" "+url), "hello")
				}
			}
		})
	}
}

// clients are command lines that print the body of the URL given as the last argument.
func clients(l *harness.Lab) map[string]string {
	python := l.WriteFile("get.py", "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')\n")
	node := l.WriteFile("get.mjs", "console.log((await (await fetch(process.argv[2])).text()).trim())\n")
	return map[string]string{
		"curl":   l.Need("curl") + " -sS --max-time 20",
		"python": l.Need("python3") + " " + python,
		"node":   l.Need("node") + " " + node,
	}
}

// nginx returns the command line of an nginx with four workers that listens as Debian's default configuration does.
// Every page says its id; files are below www in the laboratory's directory.
func nginx(l *harness.Lab, name, id string) []string {
	dir := l.Path(name)
	l.WriteFile("www/page", "hello\n")
	conf := l.WriteFile(name+"/nginx.conf", strings.NewReplacer("DIR", dir, "WWW", l.Path("www"), "ID", id).Replace(`
daemon off;
worker_processes 4;
pid DIR/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    sendfile on;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 80 default_server;
        listen [::]:80 default_server;
        root WWW;
        location = /id { return 200 "ID\n"; }
        location = /peer { return 200 "$server_addr $remote_addr\n"; }
    }
}
`))
	return []string{l.Need("nginx"), "-e", "stderr", "-p", dir, "-c", conf}
}

// TestHostWithoutIPv6: a server that listens for IPv6, too, starts on a host where that is switched off, as it does natively.
func TestHostWithoutIPv6(t *testing.T) {
	lab := harness.New(t)
	lab.Output("sh -c", "for i in all default lo; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
	lab.StartDaemon()
	lab.Start("ax run --ip 1.1.1.1 --", nginx(lab, "nginx", "up")...)
	lab.Serving("1.1.1.1:80", 1)
	equal(t, "nginx", lab.Output("ax run -- curl -sS --max-time 10 http://1.1.1.1/id"), "up")
}

// TestNginxBigFile sends 100 MB by sendfile to several clients at a time; every byte must arrive.
func TestNginxBigFile(t *testing.T) {
	lab := node(t)
	command := nginx(lab, "nginx", "big")
	want := writeRandom(t, lab.Path("www", "big"), 100<<20)
	lab.Start("ax run --ip 1.1.1.1 --name web --", command...)
	lab.Serving("1.1.1.1:80", 1)
	var downloads []*harness.Proc
	for _, host := range []string{"1.1.1.1", "web", "1.1.1.1"} {
		downloads = append(downloads, lab.Start("ax run -- sh -c", "curl -sS --max-time 50 http://"+host+"/big | sha256sum"))
	}
	for _, p := range downloads {
		r := p.Wait(runLimit)
		sum, _, _ := strings.Cut(r.Stdout, " ")
		equal(t, "checksum of the big file: "+r.Stderr, sum, want)
	}
}

// writeRandom writes a file of random bytes and returns its checksum.
func writeRandom(t *testing.T, name string, size int) string {
	t.Helper()
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{})
	if _, err := source.Read(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func TestRedis(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --name redis --", lab.Need("redis-server"), "--port", "6379", "--bind", "* -::*",
		"--protected-mode", "no", "--save", "", "--dir", lab.Path())
	lab.Serving("1.1.1.1:6379", 1)
	equal(t, "set", lab.Output("ax run -- redis-cli -h redis set key value"), "OK")
	equal(t, "get", lab.Output("ax run -- redis-cli -h 1.1.1.1 get key"), "value")
	out := lab.Output("ax run -- "+lab.Need("redis-benchmark"), "-h", "redis", "-c", "50", "-n", "20000", "-t", "set,get,lpush", "-q")
	for _, test := range []string{"SET:", "GET:", "LPUSH:"} {
		contains(t, "redis-benchmark", out, test)
	}
	if strings.Contains(out, "rror") {
		t.Errorf("redis-benchmark reports errors:\n%s", out)
	}
}

// TestWrk puts load on four nginx workers that accept on one socket: many connections, all of them answered.
func TestWrk(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --name web --", nginx(lab, "nginx", "busy")...)
	lab.Serving("1.1.1.1:80", 1)
	for _, header := range []string{"Connection: keep-alive", "Connection: close"} {
		out := lab.Output("ax run -- "+lab.Need("wrk"), "-t2", "-c32", "-d5s", "-H", header, "http://web/id")
		contains(t, "wrk", out, "Requests/sec")
		for _, bad := range []string{"Socket errors", "Non-2xx"} {
			if strings.Contains(out, bad) {
				t.Errorf("wrk with %q:\n%s", header, out)
			}
		}
	}
}

// TestAddresses: both ends see virtual addresses, never the host's.
func TestAddresses(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --", lab.GoProgram("goserver"), "-listen", ":8080")
	lab.Start("ax run --ip 1.1.1.2 --", nginx(lab, "nginx", "n")...)
	lab.Serving("1.1.1.1:8080", 1)
	lab.Serving("1.1.1.2:80", 1)
	out := lab.Output("ax run --ip 2.2.2.2 -- curl -sS http://1.1.1.1:8080/whoami")
	contains(t, "getsockname of the accepted socket", out, "local=1.1.1.1:8080")
	contains(t, "getpeername of the accepted socket", out, "remote=2.2.2.2:")
	equal(t, "the same in nginx", lab.Output("ax run --ip 2.2.2.2 -- curl -sS http://1.1.1.2/peer"), "1.1.1.2 2.2.2.2")
	out = lab.Output("ax run --ip 2.2.2.2 -- curl -sS -o /dev/null -w %{local_ip},%{remote_ip},%{remote_port} http://1.1.1.1:8080/")
	equal(t, "the client's side", out, "2.2.2.2,1.1.1.1,8080")
}

// TestGoClient: a Go client with many connections at a time, as most services have.
func TestGoClient(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --name api --", lab.GoProgram("goserver"), "-id", "api")
	client := lab.GoProgram("goclient")
	lab.Eventually(runLimit, "the name resolves and answers", func() error {
		if r := lab.Run("ax run -- curl -sS --max-time 5 http://api:8080/"); r.Code != 0 {
			return fmt.Errorf("curl: %d: %s", r.Code, r.Stderr)
		}
		return nil
	})
	for _, keepalive := range []string{"-keepalive=true", "-keepalive=false"} {
		s := summarize(t, lab.Start("ax run -- "+client, "-url", "http://api:8080/", "-count", "2000", "-workers", "8", keepalive))
		if s.Requests != 2000 || s.Failures != 0 || s.Answers["api"] != 2000 {
			t.Errorf("%s: %+v", keepalive, s)
		}
	}
}
