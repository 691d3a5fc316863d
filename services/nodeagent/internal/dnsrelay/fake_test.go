package dnsrelay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"
)

// ask makes a query; change adapts it.
func ask(t testing.TB, id uint16, name string, change ...func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	return pack(t, m, change)
}

func pack(t testing.TB, m dnsmessage.Message, change []func(*dnsmessage.Message)) []byte {
	t.Helper()
	for _, c := range change {
		c(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unpack(t testing.TB, b []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

// answer makes the answer to a query: one address with a TTL of a minute. change adapts it.
func answer(t testing.TB, query []byte, addr string, change ...func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := unpack(t, query)
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	m.Answers = []dnsmessage.Resource{record(m.Questions[0].Name, addr)}
	return pack(t, m, change)
}

func record(name dnsmessage.Name, addr string) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 60},
		Body:   &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()},
	}
}

// edns gives a query an OPT record.
func edns(size int, do bool) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(size, 0, do); err != nil {
			panic(err)
		}
		m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}})
	}
}

func withRcode(c dnsmessage.RCode) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) { m.RCode, m.Answers = c, nil }
}

func empty(m *dnsmessage.Message) { m.Answers = nil }

// addrOf returns the only address of an answer.
func addrOf(t testing.TB, b []byte) string {
	t.Helper()
	m := unpack(t, b)
	if !m.Response || len(m.Answers) != 1 {
		t.Fatalf("not one answer: %+v", m)
	}
	a, ok := m.Answers[0].Body.(*dnsmessage.AResource)
	if !ok {
		t.Fatalf("not an address: %+v", m)
	}
	return netip.AddrFrom4(a.A).String()
}

// fake is a resolver on loopback that does what a function says.
type fake struct {
	t     testing.TB
	conn  *net.UDPConn
	addr  netip.AddrPort
	asked atomic.Int32
	done  chan struct{}
}

// fakeAt runs a resolver at an address. handle is called in turn for each query, and replies by calling reply.
func fakeAt(t testing.TB, at string, handle func(query []byte, reply func([]byte))) *fake {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			f.asked.Add(1)
			handle(buf[:n], func(b []byte) {
				if _, err := conn.WriteToUDPAddrPort(b, from); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Errorf("resolver: %v", err)
				}
			})
		}
	}()
	t.Cleanup(f.kill)
	return f
}

func (f *fake) kill() {
	_ = f.conn.Close()
	<-f.done
}

// always answers every query with an address.
func always(t testing.TB, addr string) func([]byte, func([]byte)) {
	return func(q []byte, reply func([]byte)) { reply(answer(t, q, addr)) }
}

func newRelay(t testing.TB, resolver func() netip.AddrPort) *Relay {
	t.Helper()
	r, err := New(Config{Resolver: resolver}, Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// app is the socket of an application, as the agent makes it, and a client of it.
type app struct {
	t      testing.TB
	socket *net.UDPConn // stays open while relays come and go
	client *net.UDPConn
}

func newApp(t testing.TB) *app {
	t.Helper()
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.DialUDP("udp4", nil, socket.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = socket.Close(), client.Close() })
	return &app{t: t, socket: socket, client: client}
}

// serve relays the application's queries, from a duplicate of its socket, until the returned function is called.
func (a *app) serve(r *Relay) (stop func()) {
	a.t.Helper()
	file, err := a.socket.File()
	if err != nil {
		a.t.Fatal(err)
	}
	defer file.Close()
	pc, err := net.FilePacketConn(file)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, pc.(*net.UDPConn)) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				a.t.Errorf("serve: %v", err)
			}
		case <-time.After(2 * time.Second):
			a.t.Error("serve does not end")
		}
	}
	a.t.Cleanup(stop)
	return stop
}

func (a *app) send(b []byte) {
	a.t.Helper()
	if _, err := a.client.Write(b); err != nil {
		a.t.Fatalf("the application sees an error: %v", err)
	}
}

// receive returns the next answer; nil if none comes in time.
func (a *app) receive(patience time.Duration) []byte {
	a.t.Helper()
	buf := make([]byte, 64<<10)
	if err := a.client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		a.t.Fatal(err)
	}
	n, err := a.client.Read(buf)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	if err != nil {
		a.t.Fatalf("the application sees an error: %v", err)
	}
	return buf[:n]
}

func (a *app) lookup(query []byte) []byte {
	a.t.Helper()
	a.send(query)
	b := a.receive(6 * time.Second)
	if b == nil {
		a.t.Fatal("no answer")
	}
	return b
}
