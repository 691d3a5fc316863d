//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestUDPNumbers: UDP sockets have descriptor numbers that tell them apart, and what is done by sendmsg over TCP never stops
// at the agent.
func TestUDPNumbers(t *testing.T) {
	lab := node(t)
	before := lab.Metrics("udp_unnumbered_total")
	equal(t, "unnumbered sockets before", strings.Fields(before)[1], "0")
	equal(t, "numbers", lab.Output("sh -c", `ulimit -Sn 1024; exec ax run -- python3 -c "$0"`, `
import fcntl, os, resource, select, socket
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
special = lambda fd: 768 <= fd < 1024
a, b, tcp = udp(), udp(), socket.socket()
assert special(a.fileno()) and special(b.fileno()) and a.fileno() != b.fileno(), (a, b)
assert tcp.fileno() < 20 and not os.get_inheritable(a.fileno())
assert special(a.dup().fileno())
assert special(os.dup(a.fileno())) and os.dup(tcp.fileno()) < 30
c = fcntl.fcntl(a.fileno(), fcntl.F_DUPFD, 5)
assert special(c) and os.get_inheritable(c) and os.fstat(c).st_ino == os.fstat(a.fileno()).st_ino
assert fcntl.fcntl(a.fileno(), fcntl.F_DUPFD, 1000) >= 1000
try:
    fcntl.fcntl(a.fileno(), fcntl.F_DUPFD, 2000)
    assert False
except OSError as e:
    assert e.errno == 22
os.dup2(a.fileno(), 50)
assert os.fstat(50).st_ino == os.fstat(a.fileno()).st_ino
d = os.open('/dev/null', os.O_RDONLY)
e = fcntl.fcntl(d, fcntl.F_DUPFD, 900)
assert special(e) and special(os.dup(d)) is False and os.dup(e) < 50
a.bind(('127.0.0.1', 0))
b.sendto(b'x', a.getsockname())
assert select.select([a], [], [], 5)[0] and a.recvmsg(9)[0] == b'x'
many = []
while True:
    s = udp()
    many.append(s)
    if not special(s.fileno()):
        break
assert len(set(s.fileno() for s in many)) == len(many) > 200
assert os.fstat(e) and os.fstat(a.fileno())
del many
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 1024))
assert udp().fileno() < 100
resource.setrlimit(resource.RLIMIT_NOFILE, (900, 1024))
assert 768 <= udp().fileno() < 900
print('ok')`), "ok")
	equal(t, "unnumbered sockets", strings.Fields(lab.Metrics("udp_unnumbered_total"))[1], "2")
	equal(t, "a lower limit", lab.Output("sh -c", `ulimit -n 40; exec ax run -- python3 -c "$0"`, `
import socket
print(30 <= socket.socket(socket.AF_INET, socket.SOCK_DGRAM).fileno() < 40)`), "True")
}

// TestSendmsgOverTCP: the sendmsg family on TCP sockets stays in the kernel, but for TCP Fast Open.
func TestSendmsgOverTCP(t *testing.T) {
	lab := node(t)
	equal(t, "messages", lab.Output("ax run -- python3 -c", `
import errno, socket
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname())
a, _ = s.accept()
for i in range(1000):
    c.sendmsg([b'x'])
    assert a.recvmsg(1)[0] == b'x'
try:
    socket.socket().sendmsg([b'x'], [], socket.MSG_FASTOPEN, s.getsockname())
    print('connected')
except OSError as e:
    print(e.errno == errno.EOPNOTSUPP)`), "True")
	for _, line := range strings.Split(lab.Metrics("call_results_total"), "\n") {
		if strings.Contains(line, `"sendmsg"`) && strings.Contains(line, `"ok"`) && !strings.HasSuffix(line, " 0") ||
			strings.Contains(line, `"recvmsg"`) && !strings.HasSuffix(line, " 0") {
			t.Errorf("stopped at the agent: %s", line)
		}
	}
}
