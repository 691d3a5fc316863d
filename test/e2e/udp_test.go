//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
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

// TestDatagramCalls: corner cases of the calls for datagrams give under AppSwitch what they give without.
func TestDatagramCalls(t *testing.T) {
	lab := node(t)
	script := lab.Program("datagrams.py")
	want := harness.Lines(lab.Output("unshare -n -- sh -c", "ip link set lo up && exec python3 "+script))
	for _, run := range []string{"ax run --ip 2.2.2.2 -- ", "ax run --new-netns=false -- "} {
		got := harness.Lines(lab.Output(run+"python3", script))
		equal(t, run+"cases", strconv.Itoa(len(got)), strconv.Itoa(len(want)))
		for i := range min(len(got), len(want)) {
			equal(t, run, got[i], want[i])
		}
	}
}

// echoes answers each datagram with its name, the sender and the address at which it was asked.
const echoes = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 8, 1)
s.bind(('0.0.0.0', int(sys.argv[1])))
while True:
    data, control, _, sender = s.recvmsg(2000, 100)
    here = socket.inet_ntoa(control[0][2][4:8])
    answer = '%s %s:%d %s %s' % (sys.argv[2], *sender, here, data.decode())
    s.sendmsg([answer.encode()], [(level, kind, value) for level, kind, value in control], 0, sender)
`

// asks sends three datagrams, not connected and then connected, and prints the answers with their source.
const asks = `
import errno, socket, sys
to = socket.gethostbyname(sys.argv[1]), int(sys.argv[2])
for connected in False, True:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('', 4000 + connected))
    s.settimeout(5)
    try:
        for text in 'abc':
            if connected:
                s.connect(to)
                s.send(text.encode())
                print(s.recv(200).decode(), *s.getpeername())
            else:
                s.sendto(text.encode(), to)
                data, source = s.recvfrom(200)
                print(data.decode(), *source)
    except OSError as e:
        print(errno.errorcode.get(e.errno, e))
`

func asked(lab *harness.Lab, options, address, port string) string {
	return lab.Output("ax run "+options+" -- python3 -c", asks, address, port)
}

// udpAnswers is what asks prints when one server answers.
func udpAnswers(name, client, server, port string) string {
	var out []string
	for _, from := range []string{"4000", "4001"} {
		for _, text := range []string{"a", "b", "c"} {
			out = append(out, name+" "+client+":"+from+" "+server+" "+text+" "+server+" "+port)
		}
	}
	return strings.Join(out, "\n")
}

// TestUDPServices: what is bound to a port is a service, with policy and names as over TCP, and both ends see virtual
// addresses.
func TestUDPServices(t *testing.T) {
	lab := node(t)
	server := lab.Start("ax run --ip 1.1.1.1 --name echo -- python3 -c", echoes, "7000", "one")
	found := lab.Serving("1.1.1.1:7000", 1)[0]
	contains(t, "protocol of the server", strings.ToLower(found.Protocol), "udp")
	contains(t, "servers", lab.Output("ax get servers"), "udp")

	equal(t, "by address", asked(lab, "--ip 2.2.2.2", "1.1.1.1", "7000"), udpAnswers("one", "2.2.2.2", "1.1.1.1", "7000"))
	equal(t, "by name", asked(lab, "--ip 2.2.2.2", "echo", "7000"), udpAnswers("one", "2.2.2.2", "1.1.1.1", "7000"))
	equal(t, "on the same address", asked(lab, "--ip 1.1.1.1", "echo", "7000"), udpAnswers("one", "1.1.1.1", "1.1.1.1", "7000"))
	refusal := "ECONNREFUSED\nECONNREFUSED"
	equal(t, "no common label", asked(lab, "--labels zone=other", "1.1.1.1", "7000"), refusal)
	equal(t, "no such port", asked(lab, "--ip 2.2.2.2", "1.1.1.1", "7001"), refusal)
	contains(t, "explain", lab.Output("ax explain --proto udp --to 1.1.1.1:7000"), found.HostAddress.String())

	// Nobody who is not under AppSwitch gets through, from this machine or another one.
	const knock = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
s.sendto(b'knock', (sys.argv[1], int(sys.argv[2])))
try:
    print(s.recvfrom(99))
except OSError as e:
    print(type(e).__name__)
`
	host, port, _ := strings.Cut(found.HostAddress.String(), ":")
	for _, machine := range []*harness.Lab{lab, lab.Neighbour()} {
		equal(t, "from outside", machine.Output("python3 -c", knock, host, port), "TimeoutError")
	}
	equal(t, "datagrams rejected", strings.Fields(lab.Metrics("datagrams_rejected_total"))[1], "2")

	// Who asks from outside is no client, but who is outside may be asked.
	outside := lab.Neighbour().Start("python3 -c", strings.ReplaceAll(echoes, "0.0.0.0", harness.ExternalIP), "7100", "outside")
	lab.Eventually(runLimit, "the one outside answers", func() error {
		if r := lab.Run("python3 -c", knock, harness.ExternalIP, "7100"); !strings.Contains(r.Stdout, "outside") {
			return errors.New(r.Stdout)
		}
		return nil
	})
	equal(t, "outside", asked(lab, "--ip 2.2.2.2", harness.ExternalIP, "7100")[:8], "outside ")
	outside.Stop()

	// Two servers: a conversation stays with one of them, and both have conversations.
	lab.Start("ax run --ip 1.1.1.1 --name echo -- python3 -c", echoes, "7000", "two")
	lab.Serving("1.1.1.1:7000", 2)
	names := map[string]bool{}
	for range 8 {
		conversations := harness.Lines(asked(lab, "--ip 2.2.2.2", "1.1.1.1", "7000"))
		equal(t, "answers", strconv.Itoa(len(conversations)), "6")
		for i, line := range conversations {
			name, _, _ := strings.Cut(line, " ")
			if names[name] = true; !strings.HasPrefix(conversations[i/3*3], name+" ") {
				t.Errorf("a conversation has gone to another server: %q", conversations)
			}
		}
	}
	if !names["one"] || !names["two"] || len(names) != 2 {
		t.Errorf("who answered: %v, want one and two", names)
	}
	server.Stop()
	lab.Serving("1.1.1.1:7000", 1)
}

// TestUDPBinds: a port of one's choice is a service, until the socket is connected or closed; any other is not.
func TestUDPBinds(t *testing.T) {
	lab := node(t)
	app := lab.StartCmd(harness.Cmd{Args: []string{"ax", "run", "--ip", "1.1.1.1", "--", "python3", "-u", "-c", `
import os, socket, sys, time
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def step(name):
    print(name)
    while not os.path.exists(sys.argv[1] + name):
        time.sleep(0.02)
a, b, c, d, e = [udp() for _ in range(5)]
a.bind(('', 0))
b.bind(('127.0.0.1', 7001))
c.sendto(b'x', ('127.0.0.1', 7001))
d.bind(('1.1.1.1', 7002))
e.bind(('', 7003))
step('bound')
d.connect(('127.0.0.1', 7001))
step('connected')
d.close()
e.close()
step('closed')
`, lab.Path("step-")}})
	services := func(want ...string) {
		t.Helper()
		lab.Eventually(runLimit, "services are "+strings.Join(want, ", "), func() error {
			all, err := lab.Servers()
			var got []string
			for _, s := range all {
				got = append(got, s.ServiceAddress.String())
			}
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("%v, %w", got, err)
			}
			return nil
		})
	}
	services("1.1.1.1:7002", "1.1.1.1:7003")
	lab.WriteFile("step-bound", "")
	services("1.1.1.1:7003")
	lab.WriteFile("step-connected", "")
	services()
	lab.WriteFile("step-closed", "")
	app.Wait(runLimit)
}

// TestUDPPrograms: programs that serve and ask over UDP.
func TestUDPPrograms(t *testing.T) {
	lab := node(t)
	dnsmasq := lab.Need("dnsmasq") + " -k -C /dev/null -u root -R -h -p 5353 -x "
	lab.Start("ax run --ip 1.1.1.1 --name names -- "+dnsmasq+lab.Path("dns1"), "--address=/any.test/192.0.2.1")
	lab.Start("ax run --ip 1.1.1.2 -- "+dnsmasq+lab.Path("dns2"), "--address=/any.test/192.0.2.2", "--bind-interfaces", "-a", "1.1.1.2,127.0.0.1")
	lab.Start("ax run --ip 1.1.1.3 --", lab.Need("iperf3"), "-s")
	lab.Start("ax run --ip 1.1.1.4 --", lab.Need("socat"), "UDP4-RECVFROM:7001,fork", "SYSTEM:echo $SOCAT_PEERADDR; cat")
	heard := lab.Start("ax run --ip 1.1.1.5 --", lab.Need("nc.openbsd"), "-u", "-l", "-k", "7002")
	for _, address := range []string{"1.1.1.1:5353", "1.1.1.2:5353"} {
		lab.Serving(address, 2)
	}
	for _, address := range []string{"1.1.1.3:5201", "1.1.1.4:7001", "1.1.1.5:7002"} {
		lab.Serving(address, 1)
	}
	dig := lab.Need("dig") + " +short +tries=1 +time=5 -p 5353 any.test @"
	equal(t, "dnsmasq on a wildcard", lab.Output("ax run -- "+dig+"1.1.1.1"), "192.0.2.1")
	equal(t, "dnsmasq by name", lab.Output("ax run -- "+dig+"names"), "192.0.2.1")
	equal(t, "dnsmasq on its address", lab.Output("ax run -- "+dig+"1.1.1.2"), "192.0.2.2")

	for _, options := range []string{"", "-R", "-P 3"} {
		var report struct {
			End struct {
				Sum struct {
					Packets     int     `json:"packets"`
					LostPercent float64 `json:"lost_percent"`
				} `json:"sum"`
			} `json:"end"`
			Error string `json:"error"`
		}
		out := lab.Output("ax run --ip 2.2.2.2 -- iperf3 -J -u -t 1 -b 20M -c 1.1.1.3 " + options)
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("iperf3 %s: %v: %s", options, err, out)
		}
		if report.Error != "" || report.End.Sum.Packets < 10 || report.End.Sum.LostPercent > 20 {
			t.Errorf("iperf3 %s: %+v", options, report)
		}
	}
	equal(t, "socat", lab.Output("sh -c", "echo hello | ax run --ip 2.2.2.3 -- socat -T2 - UDP4:1.1.1.4:7001"), "2.2.2.3\nhello")
	lab.Run("sh -c", "echo hello | ax run -- nc.openbsd -u -w1 1.1.1.5 7002")
	lab.Eventually(runLimit, "netcat has heard", func() error {
		if !strings.Contains(heard.Stdout(), "hello") {
			return errors.New(heard.Stdout())
		}
		return nil
	})

	// As inetd starts servers: the socket is descriptor 0, and messages on it are the kernel's own affair.
	lab.Start("ax run --ip 1.1.1.6 -- python3 -c", `
import os, socket, subprocess
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 7003))
subprocess.run(['python3', '-c', '''
import socket
s = socket.socket(fileno=0)
while True:
    data, _, _, sender = s.recvmsg(99)
    s.sendmsg([b'got ' + data], [], 0, sender)
'''], stdin=s)`)
	lab.Serving("1.1.1.6:7003", 1)
	equal(t, "a server on descriptor 0", lab.Output("ax run --ip 2.2.2.2 -- python3 -c", `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(b'it', ('1.1.1.6', 7003))
print(*s.recvfrom(99))`), "b'got it' ('1.1.1.6', 7003)")
}

// TestAgentKilledUnderUDP kills the daemon while clients and a server exchange datagrams: no call fails, and whoever asks
// again gets its answer from the address that it asked.
func TestAgentKilledUnderUDP(t *testing.T) {
	lab := harness.New(t)
	daemon := lab.StartDaemon()
	lab.Start("ax run --ip 1.1.1.1 -- python3 -c", echoes, "7000", "one")
	lab.Serving("1.1.1.1:7000", 1)
	var clients []*harness.Proc
	for i, connected := range []string{"", "connected"} {
		started := lab.Path("started" + connected)
		clients = append(clients, lab.Start(fmt.Sprintf("ax run --ip 2.2.2.%d -- python3 -c", i+1), `
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
to, connected, rounds, again = ('1.1.1.1', 7000), sys.argv[1], 0, 0
if connected:
    s.connect(to)
open(sys.argv[2], 'w').close()
while not os.path.exists(sys.argv[3]):
    rounds += 1
    text = str(rounds)
    while True:
        s.send(text.encode()) if connected else s.sendto(text.encode(), to)
        try:
            while True:
                data, source = s.recvfrom(200)
                name, client, here, what = data.decode().split()
                assert source == to and here == '1.1.1.1' and client.startswith('2.2.2.'), (data, source)
                if what == text:
                    break
            break
        except TimeoutError:
            again += 1
print(rounds > 100, again)`, connected, started, lab.Path("stop")))
		lab.Eventually(runLimit, "the client runs", func() error { _, err := os.Stat(started); return err })
	}
	const kills = 6
	for i := range kills {
		time.Sleep(200 * time.Millisecond)
		daemon.Kill()
		time.Sleep(time.Duration(i%3) * 300 * time.Millisecond)
		daemon.Start()
		lab.Ready()
	}
	lab.WriteFile("stop", "")
	for _, c := range clients {
		r := c.Wait(runLimit)
		many, again, _ := strings.Cut(strings.TrimSpace(r.Stdout), " ")
		if n, err := strconv.Atoi(again); many != "True" || err != nil || n > 4*kills {
			t.Errorf("%s: %q %s", c, r.Stdout, r.Stderr)
		}
	}
	equal(t, "datagrams rejected", strings.Fields(lab.Metrics("datagrams_rejected_total"))[1], "0")
}
