package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

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
	closed := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() {
		l.Close()
		close(closed)
	})
	r.do("accept", func() (any, error) { return l.Accept() })
	<-closed // accept ends before the kernel's socket is closed
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
