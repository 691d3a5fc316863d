// Goconformance does with sockets what Go's runtime and its net package offer, and prints what each step gives, in the form of
// the C program beside it (programs/conformance): "case: step = result, timing". Start reading at main.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	blackhole = "203.0.113.9:80"
	// atOnce is coarse enough for a busy machine: what waits, waits for 250 ms or more.
	atOnce    = 200 * time.Millisecond
	caseLimit = 10 * time.Second
)

// own is the machine's address, or the application's.
var own string

// run is one case under way.
type run struct {
	name  string
	ports map[string]string // by the port that nobody asked for
}

func main() {
	own = os.Args[1]
	for _, c := range []struct {
		name string
		run  func(*run)
	}{
		{"go_dial", dial}, {"go_dual", dual}, {"go_dial_deadline", dialDeadline}, {"go_accept_deadline", acceptDeadline},
		{"go_close", closeWaiting}, {"go_file", file}, {"go_control", control}, {"go_multipath", multipath},
		{"go_conn", conn}, {"go_many", many}, {"go_udp", udp}, {"go_interfaces", interfaces},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(&run{name: c.name, ports: map[string]string{}})
		}()
		select {
		case <-done:
		case <-time.After(caseLimit):
			fmt.Printf("%s: hangs\n", c.name)
		}
	}
}

// do makes a step and prints what it gave.
func (r *run) do(step string, f func() (any, error)) {
	began := time.Now()
	value, err := f()
	timing := "at once"
	if time.Since(began) >= atOnce {
		timing = "waits"
	}
	if err != nil {
		value = outcome(err)
	}
	fmt.Printf("%s: %s = %v, %s\n", r.name, step, value, timing)
}

// outcome is what an error is, without the addresses in its text.
func outcome(err error) string {
	var errno syscall.Errno
	var ne net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	}
	return err.Error()
}

// addr shows an address. Ports are named in the order in which a case meets them.
func (r *run) addr(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if r.ports[port] == "" {
		r.ports[port] = fmt.Sprintf("P%d", len(r.ports)+1)
	}
	return net.JoinHostPort(host, r.ports[port])
}

func (r *run) ends(c net.Conn) string { return r.addr(c.LocalAddr()) + " " + r.addr(c.RemoteAddr()) }

// listen returns a listener that the case can't go on without.
func listen(network, address string) *net.TCPListener {
	l, err := net.Listen(network, address)
	if err != nil {
		fmt.Printf("listen on %s %s: %v\n", network, address, err)
		os.Exit(1)
	}
	return l.(*net.TCPListener)
}

// pair returns both ends of a connection.
func pair(l net.Listener, address string) (client, server *net.TCPConn, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	s, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	return c.(*net.TCPConn), s.(*net.TCPConn), nil
}

func port(a net.Addr) string {
	_, p, _ := net.SplitHostPort(a.String())
	return p
}
