package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` keeps the names of network namespaces.
const netnsDir = "/run/netns"

// The network of every lab. Labs don't see one another, so they all use the same addresses.
const (
	NodeIP      = "10.77.0.1"    // the lab's machine
	NeighbourIP = "10.77.0.2"    // the other end of its cable: a machine without AppSwitch
	ExternalIP  = "203.0.113.10" // a service on the Internet, as it were; the neighbour holds it
)

// makeNetwork makes two namespaces, name and name-out, joined by a cable. What the first one sends to an address
// unknown to the second comes back as unreachable at once, so that mistakes fail fast.
func makeNetwork(name string) error {
	out := name + "-out"
	for _, ns := range []string{name, out} {
		if err := ip("netns", "add", ns); err != nil {
			return err
		}
		if err := ip("-n", ns, "link", "set", "lo", "up"); err != nil {
			return err
		}
	}
	commands := [][]string{
		{"-n", name, "link", "add", "net0", "type", "veth", "peer", "name", "net0", "netns", out},
		{"-n", name, "addr", "add", NodeIP + "/24", "dev", "net0"},
		{"-n", out, "addr", "add", NeighbourIP + "/24", "dev", "net0"},
		{"-n", out, "addr", "add", ExternalIP + "/32", "dev", "lo"},
		{"-n", name, "link", "set", "net0", "up"},
		{"-n", out, "link", "set", "net0", "up"},
		{"-n", name, "route", "add", "default", "via", NeighbourIP},
		{"-n", out, "route", "add", "unreachable", "default"},
	}
	for _, c := range commands {
		if err := ip(c...); err != nil {
			return err
		}
	}
	return inNetns(out, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
}

// removeNetwork undoes makeNetwork.
func removeNetwork(name string) error {
	for _, ns := range []string{name, name + "-out"} {
		if _, err := os.Stat(filepath.Join(netnsDir, ns)); err != nil {
			continue
		}
		if err := ip("netns", "del", ns); err != nil {
			return err
		}
	}
	return nil
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// inNetns runs f on a thread that is in the named namespace.
func inNetns(name string, f func() error) error {
	ns, err := os.Open(filepath.Join(netnsDir, name))
	if err != nil {
		return err
	}
	defer ns.Close()
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked and so ends with its goroutine: no other code may run in the wrong namespace.
		return fmt.Errorf("leave network namespace %s: %w", name, back)
	}
	runtime.UnlockOSThread()
	return err
}

// dialIn returns a dialer whose sockets are in the named namespace. Addresses must be numeric.
func dialIn(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		var d net.Dialer
		inside := inNetns(name, func() error {
			conn, err = d.DialContext(ctx, network, address)
			return nil
		})
		if inside != nil {
			return nil, inside
		}
		return conn, err
	}
}

// Listen makes a listener of the test itself on the laboratory's machine.
func (l *Lab) Listen(address string) net.Listener {
	l.t.Helper()
	var listener net.Listener
	inside := inNetns(l.netns, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if inside != nil {
		l.t.Fatal(inside)
	}
	return listener
}
