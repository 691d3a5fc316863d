// Goconformance does with sockets what Go's runtime and its net package offer, and prints what each step gives, in the form of
// the C program beside it (programs/conformance): "case: step = result, timing". Start reading at main.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
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

func dial(r *run) {
	for _, host := range []string{"127.0.0.1", "::1", own} {
		at := strings.ReplaceAll(host, ":", ".")
		l := listen("tcp", net.JoinHostPort(host, "0"))
		r.do("dial "+at, func() (any, error) {
			c, s, err := pair(l, l.Addr().String())
			if err != nil {
				return nil, err
			}
			defer c.Close()
			defer s.Close()
			return r.ends(c) + " " + r.ends(s), nil
		})
		address := l.Addr().String()
		l.Close()
		r.do("refused "+at, func() (any, error) { return net.Dial("tcp", address) })
	}
	r.do("no such network", func() (any, error) { return net.Dial("tcp4", "[::1]:1") })
	r.do("from an address that isn't ours", func() (any, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1)}}
		return d.Dial("tcp", "127.0.0.1:1")
	})
	l := listen("tcp4", "127.0.0.1:0")
	r.do("from a port", func() (any, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7301}}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.LocalAddr(), nil
	})
	r.do("to itself and twice", func() (any, error) { return net.Listen("tcp", l.Addr().String()) })
}

func dual(r *run) {
	for _, network := range []string{"tcp", "tcp4", "tcp6"} {
		l := listen(network, ":0")
		r.do(network, func() (any, error) { return r.addr(l.Addr()), nil })
		for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
			r.do(network+" by "+strings.ReplaceAll(host, ":", "."), func() (any, error) {
				c, s, err := pair(l, net.JoinHostPort(host, port(l.Addr())))
				if err != nil {
					return nil, err
				}
				return r.ends(c) + " " + r.ends(s), nil
			})
		}
	}
}

func dialDeadline(r *run) {
	r.do("timeout", func() (any, error) { return net.DialTimeout("tcp", blackhole, 300*time.Millisecond) })
	r.do("deadline in the past", func() (any, error) {
		d := net.Dialer{Deadline: time.Now().Add(-time.Second)}
		return d.Dial("tcp", blackhole)
	})
	r.do("cancelled", func() (any, error) {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(300*time.Millisecond, cancel)
		return (&net.Dialer{}).DialContext(ctx, "tcp", blackhole)
	})
}

func acceptDeadline(r *run) {
	l := listen("tcp4", "127.0.0.1:0")
	accept := func(d time.Duration) func() (any, error) {
		return func() (any, error) {
			if err := l.SetDeadline(time.Now().Add(d)); err != nil {
				return nil, err
			}
			c, err := l.Accept()
			if err != nil {
				return nil, err
			}
			return r.ends(c), nil
		}
	}
	r.do("nobody", accept(300*time.Millisecond))
	r.do("in the past", accept(-time.Second))
	time.AfterFunc(300*time.Millisecond, func() { _, _ = net.Dial("tcp", l.Addr().String()) })
	r.do("somebody", accept(5*time.Second))
}

func closeWaiting(r *run) {
	l := listen("tcp4", "127.0.0.1:0")
	address := l.Addr().String()
	time.AfterFunc(300*time.Millisecond, func() { l.Close() })
	r.do("accept", func() (any, error) { return l.Accept() })
	r.do("accept again", func() (any, error) { return l.Accept() })
	r.do("dial", func() (any, error) { return net.Dial("tcp", address) })
	r.do("listen there again", func() (any, error) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		return r.addr(l.Addr()), l.Close()
	})
}

func file(r *run) {
	l := listen("tcp4", "127.0.0.1:0")
	f, err := l.File()
	if err != nil {
		fmt.Println(err)
		return
	}
	other, err := net.FileListener(f)
	r.do("FileListener", func() (any, error) { return r.addr(other.Addr()), err })
	l.Close()
	r.do("accept from the copy", func() (any, error) {
		c, s, err := pair(other, other.Addr().String())
		if err != nil {
			return nil, err
		}
		cf, err := c.File()
		if err != nil {
			return nil, err
		}
		copied, err := net.FileConn(cf)
		if err != nil {
			return nil, err
		}
		c.Close()
		if _, err := io.WriteString(s, "hello"); err != nil {
			return nil, err
		}
		b := make([]byte, 5)
		_, err = io.ReadFull(copied, b)
		return string(b) + " " + r.ends(copied), err
	})
	address := other.Addr().String()
	other.Close()
	r.do("one copy left", func() (any, error) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		return r.addr(c.RemoteAddr()), c.Close()
	})
	f.Close()
	r.do("none left", func() (any, error) { return net.Dial("tcp", address) })
}

func control(r *run) {
	const soReusePort = 15
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1) }); e != nil {
			return e
		}
		return err
	}}
	var group []net.Listener
	address := "127.0.0.1:0"
	for range 3 {
		r.do("SO_REUSEPORT", func() (any, error) {
			l, err := lc.Listen(context.Background(), "tcp4", address)
			if err != nil {
				return nil, err
			}
			group, address = append(group, l), l.Addr().String()
			return r.addr(l.Addr()), nil
		})
	}
	r.do("without", func() (any, error) { return net.Listen("tcp4", address) })
	r.do("refused by Control", func() (any, error) {
		d := net.Dialer{Control: func(string, string, syscall.RawConn) error { return errors.New("no") }}
		_, err := d.Dial("tcp", address)
		return err != nil, nil
	})
	r.do("SyscallConn", func() (any, error) {
		raw, err := group[0].(*net.TCPListener).SyscallConn()
		if err != nil {
			return nil, err
		}
		var sa syscall.Sockaddr
		if e := raw.Control(func(fd uintptr) { sa, err = syscall.Getsockname(int(fd)) }); e != nil {
			return nil, e
		}
		in, ok := sa.(*syscall.SockaddrInet4)
		return ok && fmt.Sprintf("127.0.0.1:%d", in.Port) == address, err
	})
}

func multipath(r *run) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(true)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	r.do("listen", func() (any, error) { return r.addr(l.Addr()), err })
	d := net.Dialer{}
	d.SetMultipathTCP(true)
	c, err := d.Dial("tcp", l.Addr().String())
	r.do("dial", func() (any, error) { return r.ends(c), err })
	r.do("multipath", func() (any, error) { return c.(*net.TCPConn).MultipathTCP() })
}

func conn(r *run) {
	l := listen("tcp4", "127.0.0.1:0")
	c, s, err := pair(l, l.Addr().String())
	r.do("pair", func() (any, error) { return r.ends(c), err })
	b := make([]byte, 16)
	r.do("read deadline", func() (any, error) {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		return c.Read(b)
	})
	_ = c.SetReadDeadline(time.Time{})
	r.do("CloseWrite", func() (any, error) { return nil, s.CloseWrite() })
	r.do("end of file", func() (any, error) { return c.Read(b) })
	r.do("the other way", func() (any, error) {
		if _, err := c.Write([]byte("hello")); err != nil {
			return nil, err
		}
		return s.Read(b)
	})
	r.do("ends", func() (any, error) { return r.ends(c) + " " + r.ends(s), nil })
	c, s, err = pair(l, l.Addr().String())
	r.do("second pair", func() (any, error) { return r.ends(c), err })
	_ = s.SetLinger(0)
	s.Close()
	time.Sleep(20 * time.Millisecond)
	r.do("reset", func() (any, error) { return c.Read(b) })
	r.do("keep-alive", func() (any, error) {
		return nil, c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute})
	})
}

func many(r *run) {
	const clients = 200
	for _, host := range []string{"127.0.0.1", own} {
		l := listen("tcp4", host+":0")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.WriteString(c, c.RemoteAddr().String())
				}()
			}
		}()
		var wg sync.WaitGroup
		var mu sync.Mutex
		results := map[string]int{}
		for range clients {
			wg.Go(func() {
				result := "as seen by the server"
				c, err := net.Dial("tcp", l.Addr().String())
				if err == nil {
					var seen []byte
					if seen, err = io.ReadAll(c); err == nil && string(seen) != c.LocalAddr().String() {
						result = "another address"
					}
					c.Close()
				}
				if err != nil {
					result = outcome(err)
				}
				mu.Lock()
				defer mu.Unlock()
				results[result]++
			})
		}
		wg.Wait()
		l.Close()
		fmt.Printf("%s: clients of %s: %v\n", r.name, host, results)
	}
}

func udp(r *run) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	r.do("listen", func() (any, error) { return r.addr(server.LocalAddr()), err })
	client, err := net.Dial("udp4", server.LocalAddr().String())
	r.do("dial", func() (any, error) { return r.ends(client), err })
	b := make([]byte, 16)
	r.do("write", func() (any, error) { return client.Write([]byte("hello")) })
	r.do("read", func() (any, error) {
		n, from, err := server.ReadFrom(b)
		return fmt.Sprint(n, " ", r.addr(from)), err
	})
	r.do("read deadline", func() (any, error) {
		_ = client.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		return client.Read(b)
	})
	r.do("in use", func() (any, error) { return net.ListenPacket("udp4", server.LocalAddr().String()) })
	server.Close()
	r.do("read when closed", func() (any, error) {
		n, _, err := server.ReadFrom(b)
		return n, err
	})
}

func interfaces(r *run) {
	r.do("addresses", func() (any, error) { return net.InterfaceAddrs() })
	r.do("interfaces", func() (any, error) {
		all, err := net.Interfaces()
		var names []string
		for _, i := range all {
			names = append(names, i.Name)
		}
		return names, err
	})
}
