//go:build e2e

package e2e

import (
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestSocketsAgain: what programs do with sockets one after the other, hundreds of times, so that what the agent hears of
// later than the program goes on meets the next call.
func TestSocketsAgain(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 --name who -- python3 -c", sayWho)
	lab.Serving("1.1.1.1:7000", 1)
	for _, c := range []struct{ what, script, want string }{
		{"a listener closed and opened again", `
import socket
for i in range(200):
    with socket.create_server(('', 8000), reuse_port=False) as s:
        with socket.create_connection(('127.0.0.1', 8000), timeout=20) as c:
            s.accept()[0].close()
print('ok')`, "ok"},
		{"a listener without SO_REUSEADDR", `
import socket
for i in range(200):
    with socket.socket() as s:
        s.bind(('0.0.0.0', 8001))
        s.listen()
print('ok')`, "ok"},
		{"a datagram socket", `
import socket
for i in range(200):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('127.0.0.1', 8002))
        s.connect(s.getsockname())
        s.send(b'x')
        assert s.recv(1) == b'x'
print('ok')`, "ok"},
		{"one that is still open is in the way", `
import errno, socket
with socket.create_server(('', 8003)) as s:
    for i in range(20):
        for options in (), (socket.SO_REUSEADDR,):
            with socket.socket() as other:
                for o in options:
                    other.setsockopt(socket.SOL_SOCKET, o, 1)
                try:
                    other.bind(('', 8003))
                    print('bound')
                except OSError as e:
                    assert e.errno == errno.EADDRINUSE
print('ok')`, "ok"},
		{"a client from a port of its choice", `
import socket
for i in range(200):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('', 5001))
        s.connect(('1.1.1.1', 7000))
        seen = s.makefile().read()
        assert seen == '1.1.1.1:7000 2.2.2.2:5001', seen
print('ok')`, "ok"},
		{"from [::] to ::1", `
import socket
for server_only in 0, 1:
    for client_only in 0, 1:
        s, c = socket.socket(socket.AF_INET6), socket.socket(socket.AF_INET6)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, server_only)
        c.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, client_only)
        s.bind(('::1', 0))
        s.listen()
        c.bind(('::', 0))
        c.connect(s.getsockname())
        a, source = s.accept()
        assert source == c.getsockname() and source[0] == '::1', source
        assert a.getsockname() == c.getpeername() == s.getsockname()
        assert s.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == server_only
        for x in s, c, a:
            x.close()
print('ok')`, "ok"},
	} {
		equal(t, c.what, lab.Output("ax run --ip 2.2.2.2 -- python3 -c", c.script), c.want)
	}
}

// TestSocketCalls: corner cases of the socket calls give under AppSwitch what they give without.
func TestSocketCalls(t *testing.T) {
	lab := node(t)
	script := lab.Program("sockets.py")
	want := lab.Output("unshare -n -- sh -c", "ip link set lo up && exec python3 "+script)
	for _, run := range []string{"ax run --ip 2.2.2.2 -- ", "ax run --new-netns=false -- "} {
		got := harness.Lines(lab.Output(run+"python3", script))
		for i, line := range harness.Lines(want) {
			if i >= len(got) {
				t.Fatalf("%s: nothing instead of %q", run, line)
			}
			equal(t, run, got[i], line)
		}
	}
}

// sayWho tells each client, as soon as it can, both addresses of the connection.
const sayWho = `
import socket
with socket.create_server(('', 7000), backlog=64) as server:
    while True:
        c, (host, port) = server.accept()
        with c:
            c.sendall(('%s:%d %s:%d' % (*c.getsockname(), host, port)).encode())
`
