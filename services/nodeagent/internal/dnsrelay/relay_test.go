package dnsrelay

import (
	"net/netip"
	"testing"
	"time"
)

func TestAnswersAreTheResolvers(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", always(t, "198.18.0.1"))
	a := newApp(t)
	a.serve(newRelay(t, func() netip.AddrPort { return f.addr }))
	if got := addrOf(t, a.lookup(ask(t, 7, "web."))); got != "198.18.0.1" {
		t.Errorf("got %s", got)
	}
}

func TestResolverDiesAndComesBack(t *testing.T) {
	f := fakeAt(t, "127.0.0.1:0", always(t, "198.18.0.1"))
	a := newApp(t)
	a.serve(newRelay(t, func() netip.AddrPort { return f.addr }))
	f.kill()
	a.send(ask(t, 1, "web."))
	if b := a.receive(time.Second); b != nil {
		t.Fatalf("answered by nobody: %x", b)
	}
	fakeAt(t, f.addr.String(), always(t, "198.18.0.2"))
	b := a.receive(3 * time.Second)
	if b == nil || addrOf(t, b) != "198.18.0.2" {
		t.Errorf("got %x", b)
	}
}
