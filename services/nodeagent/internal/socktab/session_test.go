package socktab_test

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
)

var began = time.Unix(1000, 0)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// udpTable has a server, 1.1.1.1:53 at 10.0.0.1:40000 of the node, and a client, 2.2.2.2:5000 at port 5000 of the node.
func udpTable() *socktab.Table {
	t := socktab.New(nil, slog.New(slog.DiscardHandler))
	t.Add(socktab.Socket{Cookie: 1, App: "aaaaaaaa", Domain: 2, Proto: ax.UDP, Host: at("10.0.0.1:40000"), Service: at("1.1.1.1:53"), SendTimeo: socktab.NoTimeo})
	t.Add(socktab.Socket{Cookie: 2, App: "bbbbbbbb", Domain: 2, Proto: ax.UDP, SendTimeo: socktab.NoTimeo})
	t.Update(2, func(s *socktab.Socket) { s.Host, s.Service = at("0.0.0.0:5000"), at("2.2.2.2:5000") })
	return t
}

func TestSender(t *testing.T) {
	table := udpTable()
	from := at("10.0.0.1:5000")
	if s, known := table.Sender(1, from, true, began); known || s.Virtual != at("2.2.2.2:5000") {
		t.Errorf("before it is announced: %+v, %v", s, known)
	}
	table.Converse(2, socktab.Session{Virtual: at("1.1.1.1:53"), Real: at("10.0.0.1:40000"), Managed: true, Revision: 7}, began)
	if s, known := table.Sender(1, from, false, began); known {
		t.Errorf("from another machine: %+v", s)
	}
	if s, known := table.Sender(1, at("10.0.0.1:5001"), true, began); known {
		t.Errorf("from another socket: %+v", s)
	}
	s, known := table.Sender(1, from, true, began)
	if !known || s.Virtual != at("2.2.2.2:5000") || s.Asked != netip.MustParseAddr("1.1.1.1") || !s.Managed {
		t.Errorf("announced: %+v, %v", s, known)
	}
	if back, ok := table.Session(1, at("2.2.2.2:5000"), began); !ok || back.Real != from {
		t.Errorf("the way back: %+v, %v", back, ok)
	}
	if s, known := table.Sender(2, at("10.0.0.1:40000"), true, began); !known || s.Virtual != at("1.1.1.1:53") {
		t.Errorf("the answer: %+v, %v", s, known)
	}
}

func TestSenderByLoopbackAndConnected(t *testing.T) {
	table := udpTable()
	table.Converse(2, socktab.Session{Virtual: at("127.0.0.1:53"), Real: at("10.0.0.1:40000"), Managed: true}, began)
	if s, _ := table.Sender(1, at("127.0.0.1:5000"), true, began); s.Virtual != at("127.0.0.1:5000") || s.Asked != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("by loopback: %+v", s)
	}
	table = udpTable()
	table.Update(2, func(s *socktab.Socket) {
		s.Peer, s.HostPeer, s.Local = at("1.1.1.1:53"), at("10.0.0.1:40000"), at("2.2.2.2:6000")
	})
	if s, known := table.Sender(1, at("10.0.0.1:5000"), true, began); !known || s.Virtual != at("2.2.2.2:6000") {
		t.Errorf("connected: %+v, %v", s, known)
	}
}

func TestSessionEnds(t *testing.T) {
	table := udpTable()
	v := socktab.Session{Virtual: at("1.1.1.1:53"), Real: at("10.0.0.1:40000"), Revision: 1}
	table.Converse(2, v, began)
	later := began.Add(socktab.SessionIdle)
	if _, ok := table.Session(2, v.Virtual, later); !ok {
		t.Error("forgotten too early")
	}
	if _, ok := table.Session(2, v.Virtual, later.Add(socktab.SessionIdle+1)); ok {
		t.Error("remembered for too long")
	}
	table.Update(2, func(s *socktab.Socket) { s.Host = at("10.0.0.1:5000") })
	if _, ok := table.Session(2, v.Virtual, later); !ok {
		t.Error("forgotten with an address, but the port is the same")
	}
	table.Update(2, func(s *socktab.Socket) { s.Host = at("10.0.0.1:5001") })
	if _, ok := table.Session(2, v.Virtual, later); ok {
		t.Error("remembered with another port")
	}
}

func TestSessionsAreBounded(t *testing.T) {
	table := udpTable()
	session := func(i int) socktab.Session {
		ip := netip.AddrFrom4([4]byte{3, 0, byte(i >> 8), byte(i)})
		return socktab.Session{Virtual: netip.AddrPortFrom(ip, 1), Real: netip.AddrPortFrom(ip, 2)}
	}
	for i := range socktab.MaxSessions {
		table.Converse(2, session(i), began)
	}
	if n := table.Forgotten(); n != 0 {
		t.Fatalf("%d forgotten", n)
	}
	table.Converse(2, session(socktab.MaxSessions), began)
	if n := table.Forgotten(); n != 1 {
		t.Errorf("%d forgotten, want 1", n)
	}
	table.Converse(2, session(socktab.MaxSessions+1), began.Add(2*socktab.SessionIdle))
	if n := table.Forgotten(); n != 1 {
		t.Errorf("%d forgotten where all others are idle, want 1", n)
	}
	kept := 0
	for i := range socktab.MaxSessions + 2 {
		if _, ok := table.Session(2, session(i).Virtual, began.Add(2*socktab.SessionIdle)); ok {
			kept++
		}
	}
	if kept != 1 {
		t.Errorf("%d sessions, want the last one", kept)
	}
}

func TestCorrespondent(t *testing.T) {
	table := udpTable()
	if c, ok := table.Correspondent("aaaaaaaa", at("2.2.2.2:5000"), began); ok {
		t.Errorf("before it has asked: %+v", c)
	}
	table.Converse(2, socktab.Session{Virtual: at("1.1.1.1:53"), Real: at("10.0.0.1:40000"), Managed: true}, began)
	if c, ok := table.Correspondent("aaaaaaaa", at("2.2.2.2:5000"), began); !ok || c.Cookie != 2 {
		t.Errorf("another socket of the application: %+v, %v", c, ok)
	}
	if c, ok := table.Correspondent("cccccccc", at("2.2.2.2:5000"), began); ok {
		t.Errorf("another application: %+v", c)
	}
	if c, ok := table.Correspondent("bbbbbbbb", at("127.0.0.1:5000"), began); !ok || c.Cookie != 2 {
		t.Errorf("one's own loopback: %+v, %v", c, ok)
	}
	table.Remove(2, began)
	if c, ok := table.Correspondent("aaaaaaaa", at("2.2.2.2:5000"), began); ok {
		t.Errorf("closed: %+v", c)
	}
}

// TestAnswerFromAnotherSocket: as TFTP does, a server goes on from a socket of its own.
func TestAnswerFromAnotherSocket(t *testing.T) {
	table := udpTable()
	table.Converse(2, socktab.Session{Virtual: at("1.1.1.1:53"), Real: at("10.0.0.1:40000"), Managed: true}, began)
	table.Add(socktab.Socket{Cookie: 3, App: "aaaaaaaa", Domain: 2, Proto: ax.UDP, Host: at("0.0.0.0:6000"), Service: at("1.1.1.1:6000"), SendTimeo: socktab.NoTimeo})
	table.Converse(3, socktab.Session{Virtual: at("2.2.2.2:5000"), Real: at("10.0.0.1:5000"), Managed: true}, began)
	if s, known := table.Sender(2, at("10.0.0.1:6000"), true, began); !known || s.Virtual != at("1.1.1.1:6000") {
		t.Errorf("%+v, %v", s, known)
	}
	if c, ok := table.Correspondent("bbbbbbbb", at("1.1.1.1:6000"), began); !ok || c.Cookie != 3 {
		t.Errorf("the way back: %+v, %v", c, ok)
	}
}
