package connectivity

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ports of the servers' address.
const (
	servedPort = 7001
	emptyPort  = 7009 // nobody's
)

// Labels of the servers and clients.
const (
	labelsOne   = "ax-test=one"
	labelsTwo   = "ax-test-two=yes"
	labelsBoth  = labelsOne + "," + labelsTwo
	labelsAlien = "ax-test=alien"
)

const refused = "ECONNREFUSED"

// check is one thing that must be so: a request of a client, and how it must end.
type check struct {
	name    string // of the check, for people
	labels  string // of the client
	to      string // HOST:PORT, in which ADDR stands for the servers' address and NAME for their name
	size    int    // bytes sent
	awaited bool   // routes may be on their way: the request is made again until it ends as it must, within tableWait
	repeat  int    // the request is made so often, until all of tags have answered; 0: once, by any of them
	errno   string // the request must fail with this errno; empty: it must succeed
	tags    string // of the servers that may answer
	unknown bool   // the request must fail because the name is unknown
	lookup  string // to is a name, which is looked up in this way (overConnected and so on)
}

// checks are made in this order while two servers stand at one address and name: "1" with labelsOne and "2" with
// labelsBoth.
var checks = []check{
	{name: "connect by address", labels: labelsOne, to: at("ADDR", servedPort), size: 100, awaited: true, tags: "1 2"},
	{name: "connect by name", labels: labelsOne, to: at("NAME", servedPort), size: 100, awaited: true, tags: "1 2"},
	{name: "lookup over UDP, connected", labels: labelsOne, to: "NAME", lookup: overConnected},
	{name: "lookup over UDP, unconnected", labels: labelsOne, to: "NAME", lookup: overUnconnected},
	{name: "lookup over TCP", labels: labelsOne, to: "NAME", lookup: overTCP},
	{name: "8 MiB arrive intact", labels: labelsOne, to: at("NAME", servedPort), size: 8 << 20, tags: "1 2"},
	{name: "both servers get connections", labels: labelsOne, to: at("ADDR", servedPort), size: 1, repeat: 64, tags: "1 2"},
	{name: "labels choose the server", labels: labelsTwo, to: at("ADDR", servedPort), size: 1, tags: "2"},
	{name: "without a shared label: refused", labels: labelsAlien, to: at("ADDR", servedPort), errno: refused},
	{name: "a port that nobody serves: refused", labels: labelsOne, to: at("ADDR", emptyPort), errno: refused},
	{name: "a name that nobody has: unknown", labels: labelsOne, to: at("NAME-nobody", servedPort), unknown: true},
	{name: "loopback is private", labels: labelsOne, to: at("127.0.0.1", servedPort), errno: refused},
}

// refusedAfter is the check of the servers' address when they are gone.
var refusedAfter = check{name: "their address is refused", labels: labelsOne, to: at("ADDR", servedPort), awaited: true, errno: refused}

func at(host string, port int) string { return fmt.Sprintf("%s:%d", host, port) }

// judge compares one outcome with what a check wants. addr is the address of the servers.
func (c check) judge(o Outcome, addr string) error {
	switch {
	case c.errno != "" && o.Error == "":
		return fmt.Errorf("server %s answered, want %s", o.Tag, c.errno)
	case c.errno != "" && o.Errno != c.errno:
		return fmt.Errorf("%s, want %s", o.Error, c.errno)
	case c.errno != "":
		return nil
	case c.unknown && o.Error == "":
		return fmt.Errorf("server %s answered, want an unknown name", o.Tag)
	case c.unknown && !strings.Contains(o.Error, "no such host"):
		return fmt.Errorf("%s, want an unknown name", o.Error)
	case c.unknown:
		return nil
	case o.Error != "":
		return errors.New(o.Error)
	case c.lookup != "":
		return judgeLookup(o, addr)
	case !slices.Contains(strings.Fields(c.tags), o.Tag):
		return fmt.Errorf("server %q answered, want %s", o.Tag, strings.ReplaceAll(c.tags, " ", " or "))
	case o.SHA256 != o.Sent:
		return errors.New("the server received other bytes than were sent")
	case host(o.Peer) != addr:
		return fmt.Errorf("the client sees its peer as %s, want %s", o.Peer, addr)
	case o.Client != o.Local:
		return fmt.Errorf("the server sees the client as %s, which sees itself as %s", o.Client, o.Local)
	}
	return nil
}

// judgeLookup wants the servers' address, from the nameserver that was asked.
func judgeLookup(o Outcome, addr string) error {
	if len(o.Addrs) != 1 || o.Addrs[0] != addr {
		return fmt.Errorf("the nameserver says %v, want %s", o.Addrs, addr)
	}
	if o.Peer != o.Asked {
		return fmt.Errorf("%s was asked, and %s answered", o.Asked, o.Peer)
	}
	return nil
}

// host returns the address of an address with a port.
func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

func errnoName(errno syscall.Errno) string { return unix.ErrnoName(errno) }
