package connectivity

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// freePort returns a port of loopback that nobody has.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestProbe lets the programs talk to each other without AppSwitch in between.
func TestProbe(t *testing.T) {
	stdin, hold := io.Pipe()
	said, out := io.Pipe()
	port := freePort(t)
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), port, "x", stdin, out) }()
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("it said %q, %v", line, err)
	}
	to := at("127.0.0.1", int(port))
	for _, size := range []int{0, 1, 3 << 20} {
		o := Call(t.Context(), to, size, time.Minute)
		if err := (check{tags: "x"}).judge(o, "127.0.0.1"); err != nil {
			t.Errorf("%d bytes: %v: %+v", size, err, o)
		}
	}
	hold.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if o := Call(t.Context(), to, 1, time.Minute); o.Errno != refused {
		t.Errorf("after the end: %+v", o)
	}
	if o := Call(context.Background(), "127.0.0.1:1", MaxBytes+1, time.Second); !strings.Contains(o.Error, "too many") {
		t.Errorf("got %+v", o)
	}
}

func TestJudge(t *testing.T) {
	fine := Outcome{Answer: Answer{Tag: "1", Client: "2.2.2.2:9", SHA256: "s"}, Local: "2.2.2.2:9", Peer: "1.1.1.1:80", Sent: "s", Asked: "1.1.1.1:80"}
	but := func(change func(*Outcome)) Outcome {
		o := fine
		change(&o)
		return o
	}
	failed := func(errno, text string) Outcome { return Outcome{Errno: errno, Error: text} }
	succeed, fail, unknown, lookedUp := check{tags: "1 2"}, check{errno: refused}, check{unknown: true}, check{lookup: overConnected}
	for name, c := range map[string]struct {
		check   check
		outcome Outcome
		want    string
	}{
		"fine":             {succeed, fine, ""},
		"refused":          {succeed, failed(refused, "connection refused"), "connection refused"},
		"another server":   {succeed, but(func(o *Outcome) { o.Tag = "3" }), `server "3" answered, want 1 or 2`},
		"damaged":          {succeed, but(func(o *Outcome) { o.SHA256 = "x" }), "other bytes"},
		"real address":     {succeed, but(func(o *Outcome) { o.Peer = "10.0.0.1:80" }), "sees its peer as 10.0.0.1:80, want 1.1.1.1"},
		"masked client":    {succeed, but(func(o *Outcome) { o.Client = "10.0.0.1:9" }), "sees the client as 10.0.0.1:9"},
		"as it must fail":  {fail, failed(refused, "connection refused"), ""},
		"fails otherwise":  {fail, failed("ETIMEDOUT", "timed out"), "timed out, want ECONNREFUSED"},
		"fails without":    {fail, failed("", "lost"), "lost, want ECONNREFUSED"},
		"must fail":        {fail, fine, "server 1 answered, want ECONNREFUSED"},
		"looked up":        {lookedUp, but(func(o *Outcome) { o.Addrs = []string{"1.1.1.1"} }), ""},
		"wrong address":    {lookedUp, but(func(o *Outcome) { o.Addrs = []string{"1.1.1.2"} }), "says [1.1.1.2], want 1.1.1.1"},
		"other nameserver": {lookedUp, but(func(o *Outcome) { o.Addrs, o.Asked = []string{"1.1.1.1"}, "127.0.0.1:53" }), "127.0.0.1:53 was asked, and 1.1.1.1:80 answered"},
		"no answer":        {lookedUp, failed("", "i/o timeout"), "i/o timeout"},
		"unknown":          {unknown, failed("", "lookup x: no such host"), ""},
		"known":            {unknown, fine, "want an unknown name"},
		"unknown for long": {unknown, failed("", "lookup x: i/o timeout"), "i/o timeout, want an unknown name"},
	} {
		err := c.check.judge(c.outcome, "1.1.1.1")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
