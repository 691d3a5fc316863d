//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// listens waits until something outside AppSwitch answers on an address of this machine.
func listens(lab *harness.Lab, address string) {
	lab.Eventually(runLimit, address+" listens", func() error {
		conn, err := lab.Dial(address)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// TestPrivateLoopback: what an application serves on its loopback is for itself.
func TestPrivateLoopback(t *testing.T) {
	lab := node(t)
	server := lab.GoProgram("goserver")
	const both = `"$0" -listen 127.0.0.1:9000 -id inside & while ! curl -sS --max-time 5 http://127.0.0.1:9000/; do sleep 0.05; done; touch "$1"; wait`
	up := lab.Path("up")
	app := lab.Start("ax run --ip 1.1.1.1 -- sh -c", both, server, up)
	lab.Eventually(runLimit, "the application reaches its own loopback", func() error { _, err := os.Stat(up); return err })
	contains(t, "inside", app.Stdout(), "inside")
	refused(t, lab, "another application's loopback", "ax run --", "http://127.0.0.1:9000/")
	refused(t, lab, "the host's loopback", "", "http://127.0.0.1:9000/")
	refused(t, lab, "the application's address", "ax run --", "http://1.1.1.1:9000/")
	if servers, err := lab.Servers(); err != nil || len(servers) != 0 {
		t.Errorf("a loopback listener is in the service table: %v, %v", servers, err)
	}
}

// TestHostLoopback: a service on the host's loopback is out of reach, and so are AppSwitch's own ports.
func TestHostLoopback(t *testing.T) {
	lab := node(t)
	lab.Start(lab.GoProgram("goserver") + " -listen 127.0.0.1:9100 -id host")
	listens(lab, "127.0.0.1:9100")
	for _, url := range []string{
		"http://127.0.0.1:9100/", "http://localhost:9100/", "http://[::1]:9100/",
		harness.REST + "/v1/apps", "http://" + harness.NodeIP + ":6664/", "http://" + harness.NodeIP + ":6665/",
		"http://" + harness.NodeIP + ":6662/", "http://" + harness.NodeIP + ":6666/",
	} {
		refused(t, lab, url, "ax run --", url)
	}
	equal(t, "--new-netns=false shares the host's loopback",
		lab.Output("ax run --new-netns=false -- curl -sS --max-time 5 http://127.0.0.1:9100/"), "host")
}

// TestHostPortIsNoOpenDoor: the host port behind a service admits those that an agent announced, and no one else.
func TestHostPortIsNoOpenDoor(t *testing.T) {
	lab := node(t)
	serve(lab, "1.1.1.1", "secret", "role=prod")
	host := lab.Serving("1.1.1.1:80", 1)[0].HostAddress
	equal(t, "node of the server", host.IP, harness.NodeIP)
	for where, machine := range map[string]*harness.Lab{"the node": lab, "another machine": lab.Neighbour()} {
		t.Run(strings.ReplaceAll(where, " ", "-"), func(t *testing.T) { closedUnread(t, machine.In(t), host) })
	}
	url := "http://" + host.String() + "/"
	refused(t, lab, "a managed client with other labels", "ax run --", url)
	equal(t, "a managed client with the labels", lab.Output("ax run --labels role=prod -- curl -sS --max-time 10 "+url), "secret")
	equal(t, "the service afterwards", lab.Output("ax run --labels role=prod -- curl -sS --max-time 10 http://1.1.1.1/"), "secret")
}

// closedUnread checks that a connection to address ends soon and without an answer.
func closedUnread(t *testing.T, from *harness.Lab, address harness.Address) {
	t.Helper()
	conn, err := from.Dial(net.JoinHostPort(address.IP, strconv.Itoa(address.Port)))
	if err != nil {
		return // refused: just as well
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n") // it may be closed already
	answer, err := io.ReadAll(conn)
	if len(answer) > 0 {
		t.Errorf("an unannounced client got %q", answer)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection of an unannounced client is still open after 5 s")
	}
}

// TestClaimedAddressStaysVirtual: with its last server gone an address is refused; it never falls through to the machine
// outside that has the same address.
func TestClaimedAddressStaysVirtual(t *testing.T) {
	lab := node(t)
	lab.Neighbour().Start(lab.GoProgram("goserver") + " -listen " + harness.ExternalIP + ":80 -id outside")
	listens(lab, harness.ExternalIP+":80")
	const curl = "ax run -- curl -sS --max-time 10 http://" + harness.ExternalIP + "/"
	equal(t, "an external service", lab.Output(curl), "outside")
	server := serve(lab, harness.ExternalIP, "inside", "")
	lab.Serving(harness.ExternalIP+":80", 1)
	equal(t, "the claimed address", lab.Output(curl), "inside")
	server.Stop()
	lab.Eventually(runLimit, "the server is gone", func() error {
		servers, err := lab.Servers()
		if err == nil && len(servers) > 0 {
			err = fmt.Errorf("%v", servers)
		}
		return err
	})
	refused(t, lab, "the claimed address without a server", "ax run --", "http://"+harness.ExternalIP+"/")
}

// TestExternal: everything that is not virtual is reached from the host, by address and with the host's own address.
func TestExternal(t *testing.T) {
	lab := node(t)
	lab.Neighbour().Start(lab.GoProgram("goserver") + " -listen :8080 -id outside")
	listens(lab, harness.NeighbourIP+":8080")
	out := lab.Output("ax run --ip 1.1.1.1 -- curl -sS --max-time 10 http://" + harness.NeighbourIP + ":8080/whoami")
	contains(t, "what the outside sees", out, "remote="+harness.NodeIP+":")
	refused(t, lab, "a closed port outside", "ax run --", "http://"+harness.NeighbourIP+":8081/")
}

// TestRawSockets: no raw sockets, whatever the user.
func TestRawSockets(t *testing.T) {
	lab := node(t)
	const raw = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)"
	r := lab.Run("ax run -- python3 -c", raw)
	if r.Code == 0 || !strings.Contains(r.Stderr, "PermissionError") && !strings.Contains(r.Stderr, "not supported") {
		t.Errorf("a raw socket: %+v, want it refused", r)
	}
}
