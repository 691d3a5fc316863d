//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"appswitch.io/test/e2e/harness"
)

// TestUDPVirtualService: a virtual service leads to UDP servers, which both ends know by its address.
func TestUDPVirtualService(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 -- python3 -c", echoes, "7000", "one")
	lab.Serving("1.1.1.1:7000", 1)
	lab.Output("ax create vservice --ip 3.3.3.3 --backends 1.1.1.1 virtual")
	equal(t, "by address", asked(lab, "--ip 2.2.2.2", "3.3.3.3", "7000"), udpAnswers("one", "2.2.2.2", "3.3.3.3", "7000"))
	equal(t, "by name", asked(lab, "--ip 2.2.2.2", "virtual", "7000"), udpAnswers("one", "2.2.2.2", "3.3.3.3", "7000"))
}

// TestUDPTransfer: as TFTP does, the server goes on from another socket; client and server know each other's addresses.
func TestUDPTransfer(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 -- python3 -c", `
import socket
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s = udp()
s.bind(('', 69))
while True:
    _, client = s.recvfrom(99)
    transfer = udp()
    transfer.settimeout(10)
    transfer.sendto(b'first', client)
    _, sender = transfer.recvfrom(99)
    transfer.sendto(b'second to %s, %r' % (sender[0].encode(), sender == client), client)`)
	lab.Serving("1.1.1.1:69", 1)
	for _, options := range []string{"--ip 2.2.2.2", ""} {
		got := lab.Output("ax run "+options+" -- python3 -c", `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(b'get', ('1.1.1.1', 69))
data, server = s.recvfrom(99)
s.sendto(b'go on', server)
again, other = s.recvfrom(99)
print(data.decode(), server[0], server == other and server[1] != 69, again.decode())`)
		if options == "" {
			got = strings.ReplaceAll(got, harness.NodeIP, "2.2.2.2")
		}
		equal(t, "client "+options, got, "first 1.1.1.1 True second to 2.2.2.2, True")
	}
}

// TestUDPLowCopy: what a program sends from a copy of a socket that is out of the agent's sight doesn't reach the servers of
// others.
func TestUDPLowCopy(t *testing.T) {
	lab := node(t)
	lab.Start("ax run --ip 1.1.1.1 -- python3 -c", echoes, "7000", "one")
	host, port, _ := strings.Cut(lab.Serving("1.1.1.1:7000", 1)[0].HostAddress.String(), ":")
	equal(t, "past the agent", lab.Output("ax run --labels zone=other -- python3 -c", `
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
os.dup2(s.fileno(), 50)
low = socket.socket(fileno=50)
low.settimeout(1)
low.sendmsg([b'past'], [], 0, (sys.argv[1], int(sys.argv[2])))
try:
    print(low.recvmsg(99))
except TimeoutError:
    print('no answer')`, host, port), "no answer")
	equal(t, "datagrams rejected", strings.Fields(lab.Metrics("datagrams_rejected_total"))[1], "1")
}
