package dnsrelay

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/dns/dnsmessage"
)

var (
	errRefused = errors.New("connection refused")
	somewhere  = netip.MustParseAddrPort("127.0.0.1:53")
)

// network is where the resolver is, or is not, at each moment of a test with made-up time.
type network struct {
	start time.Time
	// behave says what happens to a query sent so long after the start: refused, or answered so much later with some
	// bytes, or nothing.
	behave func(at time.Duration, query []byte) (refused bool, after time.Duration, answer []byte)

	mu    sync.Mutex // guards what follows
	sent  []time.Duration
	to    []netip.AddrPort
	dials int
	open  int
}

func (n *network) dial(to netip.AddrPort) (upstream, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	n.open++
	return &wire{network: n, to: to, arrived: make(chan []byte, 64), refused: make(chan struct{}, 64), closed: make(chan struct{})}, nil
}

// wire is an upstream in memory.
type wire struct {
	network *network
	to      netip.AddrPort
	arrived chan []byte
	refused chan struct{}
	once    sync.Once
	closed  chan struct{}
}

func (w *wire) send(query []byte) error {
	n := w.network
	at := time.Since(n.start)
	n.mu.Lock()
	n.sent, n.to = append(n.sent, at), append(n.to, w.to)
	n.mu.Unlock()
	refused, after, b := n.behave(at, query)
	if refused {
		w.refused <- struct{}{}
	} else if b != nil {
		time.AfterFunc(after, func() { w.arrived <- b })
	}
	return nil
}

func (w *wire) receive(until time.Time, accept func([]byte) bool) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case b := <-w.arrived:
			if accept(b) {
				return nil
			}
		case <-w.refused:
			return errRefused
		case <-w.closed:
			return os.ErrClosed
		case <-timer.C:
			return os.ErrDeadlineExceeded
		}
	}
}

func (w *wire) close() {
	w.once.Do(func() {
		close(w.closed)
		w.network.mu.Lock()
		defer w.network.mu.Unlock()
		w.network.open--
	})
}

// told is a reply and when it came.
type told struct {
	at time.Duration
	b  []byte
}

// exchangeOver runs one exchange over a network, and returns what the client was told and when the exchange ended.
func exchangeOver(t *testing.T, r *Relay, n *network, query []byte) (replies []told, end time.Duration) {
	t.Helper()
	n.start = time.Now()
	r.dial = n.dial
	e := exchange{relay: r, query: parse(query), reply: func(b []byte) {
		replies = append(replies, told{time.Since(n.start), slices.Clone(b)})
	}}
	e.run(t.Context())
	if n.open != 0 {
		t.Errorf("%d sockets are left open", n.open)
	}
	return replies, time.Since(n.start)
}

func atSomewhere() netip.AddrPort { return somewhere }

func ms(values ...int) []time.Duration {
	var out []time.Duration
	for _, v := range values {
		out = append(out, time.Duration(v)*time.Millisecond)
	}
	return out
}

func result(r *Relay, name string) float64 { return testutil.ToFloat64(r.metrics.queries[name]) }

// schedule is when a query is sent as long as there is no answer.
var schedule = ms(0, 100, 300, 700, 1200, 1700, 2200, 2700, 3200, 3700, 4200)

func TestSilenceAndRefusalEndInServfail(t *testing.T) {
	for name, refused := range map[string]bool{"silent": false, "refusing": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t, atSomewhere)
				n := &network{behave: func(time.Duration, []byte) (bool, time.Duration, []byte) { return refused, 0, nil }}
				query := ask(t, 9, "Web.", edns(1232, false))
				replies, end := exchangeOver(t, r, n, query)
				if !slices.Equal(n.sent, schedule) {
					t.Errorf("sent at %v", n.sent)
				}
				if len(replies) != 1 || replies[0].at != Patience || end != Patience || result(r, failed) != 1 {
					t.Fatalf("told %v, ended after %s", replies, end)
				}
				m := unpack(t, replies[0].b)
				if m.RCode != dnsmessage.RCodeServerFailure || m.ID != 9 || !m.Response || !m.RecursionDesired || m.Questions[0].Name.String() != "Web." ||
					len(m.Additionals) != 1 || m.Additionals[0].Header.Type != dnsmessage.TypeOPT {
					t.Errorf("told %+v", m)
				}
				if want := map[bool]int{true: len(schedule), false: 1}[refused]; n.dials != want {
					t.Errorf("%d sockets, want %d", n.dials, want)
				}
			})
		})
	}
}

func TestAnswersWhenTheResolverIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t, atSomewhere)
		n := &network{behave: func(at time.Duration, q []byte) (bool, time.Duration, []byte) {
			switch {
			case at < 500*time.Millisecond:
				return true, 0, nil // gone
			case at < time.Second:
				return false, 0, nil // no table yet
			}
			return false, time.Millisecond, answer(t, q, "198.18.0.1")
		}}
		replies, end := exchangeOver(t, r, n, ask(t, 1, "web."))
		if len(replies) != 1 || end != 1201*time.Millisecond || addrOf(t, replies[0].b) != "198.18.0.1" || result(r, answered) != 1 {
			t.Errorf("told %v, ended after %s", replies, end)
		}
	})
}

// A resolver that asks another takes its time; its answer to the first sending is as good as one to the last.
func TestSlowResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t, atSomewhere)
		n := &network{behave: func(_ time.Duration, q []byte) (bool, time.Duration, []byte) {
			return false, 4 * time.Second, answer(t, q, "192.0.2.1")
		}}
		replies, end := exchangeOver(t, r, n, ask(t, 1, "example.com."))
		if len(replies) != 1 || end != 4*time.Second || addrOf(t, replies[0].b) != "192.0.2.1" || len(n.sent) > len(schedule) {
			t.Errorf("told %v, ended after %s", replies, end)
		}
	})
}

// know has the relay ask a resolver that answers.
func know(t *testing.T, r *Relay, query []byte, change ...func(*dnsmessage.Message)) {
	t.Helper()
	n := &network{behave: func(_ time.Duration, q []byte) (bool, time.Duration, []byte) {
		return false, time.Millisecond, answer(t, q, "198.18.0.1", change...)
	}}
	if replies, end := exchangeOver(t, r, n, query); len(replies) != 1 || end != time.Millisecond {
		t.Fatalf("told %v after %s", replies, end)
	}
}

func dead(time.Duration, []byte) (bool, time.Duration, []byte)   { return true, 0, nil }
func silent(time.Duration, []byte) (bool, time.Duration, []byte) { return false, 0, nil }

func TestStaleAnswerOfADeadResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t, atSomewhere)
		know(t, r, ask(t, 1, "web.", edns(1232, false)), edns(4096, false))
		time.Sleep(MaxStale - time.Minute)
		n := &network{behave: dead}
		replies, end := exchangeOver(t, r, n, ask(t, 0xBEEF, "wEb.", edns(1232, false)))
		if len(replies) != 1 || replies[0].at != StaleAfter || end != StaleAfter || result(r, stale) != 1 {
			t.Fatalf("told %v, ended after %s", replies, end)
		}
		if !slices.Equal(n.sent, ms(0, 100)) {
			t.Errorf("sent at %v", n.sent)
		}
		m := unpack(t, replies[0].b)
		if m.ID != 0xBEEF || m.Questions[0].Name.String() != "wEb." || m.Answers[0].Header.TTL != StaleTTL || m.Authoritative ||
			addrOf(t, replies[0].b) != "198.18.0.1" || len(m.Additionals) != 1 || m.Additionals[0].Header.Class != 4096 {
			t.Errorf("told %+v", m)
		}

		time.Sleep(time.Minute)
		replies, _ = exchangeOver(t, r, &network{behave: dead}, ask(t, 2, "web.", edns(1232, false)))
		if len(replies) != 1 || unpack(t, replies[0].b).RCode != dnsmessage.RCodeServerFailure {
			t.Errorf("too old: told %v", replies)
		}
	})
}

// Whoever has a stale answer does not press the resolver, but what that says at last counts.
func TestStaleAnswerOfASlowResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t, atSomewhere)
		query := ask(t, 1, "web.")
		know(t, r, query)
		n := &network{behave: func(_ time.Duration, q []byte) (bool, time.Duration, []byte) {
			return false, 2 * time.Second, answer(t, q, "198.18.0.2")
		}}
		replies, end := exchangeOver(t, r, n, query)
		if len(replies) != 1 || replies[0].at != StaleAfter || addrOf(t, replies[0].b) != "198.18.0.1" || end != 2*time.Second || !slices.Equal(n.sent, ms(0, 100)) {
			t.Errorf("told %v, sent at %v, ended after %s", replies, n.sent, end)
		}
		replies, end = exchangeOver(t, r, &network{behave: silent}, query)
		if len(replies) != 1 || addrOf(t, replies[0].b) != "198.18.0.2" || end != Patience {
			t.Errorf("afterwards told %v, ended after %s", replies, end)
		}
		if result(r, stale) != 2 || result(r, failed) != 0 {
			t.Error("miscounted")
		}
	})
}

func TestWhatIsServedStale(t *testing.T) {
	query := func(t *testing.T) []byte { return ask(t, 1, "web.") }
	large := func(m *dnsmessage.Message) {
		for range 40 {
			m.Answers = append(m.Answers, m.Answers[0])
		}
	}
	for _, tt := range []struct {
		name         string
		first        func(*dnsmessage.Message) // what the resolver said
		firstQ, then []byte
		stale        bool
	}{
		{name: "no data", first: empty, stale: true},
		{name: "no such name", first: withRcode(dnsmessage.RCodeNameError)},
		{name: "failure", first: withRcode(dnsmessage.RCodeServerFailure)},
		{name: "truncated", first: func(m *dnsmessage.Message) { m.Truncated = true }},
		{name: "another name", then: ask(t, 1, "wep.")},
		{name: "another type", then: ask(t, 1, "web.", func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA })},
		{name: "EDNS only now", then: ask(t, 1, "web.", edns(1232, false))},
		{name: "EDNS only then", firstQ: ask(t, 1, "web.", edns(1232, false))},
		{name: "signatures only now", firstQ: ask(t, 1, "web.", edns(1232, false)), then: ask(t, 1, "web.", edns(1232, true))},
		{name: "no recursion now", then: ask(t, 1, "web.", func(m *dnsmessage.Message) { m.RecursionDesired = false })},
		{name: "longer than 512 without EDNS", first: large},
		{name: "longer than what is taken now", first: large, firstQ: ask(t, 1, "web.", edns(4096, false)), then: ask(t, 1, "web.", edns(513, false))},
		{name: "as long as was taken", first: large, firstQ: ask(t, 1, "web.", edns(4096, false)), then: ask(t, 1, "web.", edns(2048, false)), stale: true},
		{name: "of a status request", firstQ: ask(t, 1, "web.", func(m *dnsmessage.Message) { m.OpCode = 2 }), then: ask(t, 1, "web.", func(m *dnsmessage.Message) { m.OpCode = 2 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t, atSomewhere)
				if tt.firstQ == nil {
					tt.firstQ = query(t)
				}
				if tt.then == nil {
					tt.then = query(t)
				}
				if tt.first == nil {
					tt.first = func(*dnsmessage.Message) {}
				}
				know(t, r, tt.firstQ, tt.first)
				exchangeOver(t, r, &network{behave: dead}, tt.then)
				if got := result(r, stale) == 1; got != tt.stale {
					t.Errorf("served stale: %v", got)
				}
			})
		})
	}
}

func TestWhatIsNoLongerTrueIsForgotten(t *testing.T) {
	for name, change := range map[string]func(*dnsmessage.Message){
		"no such name": withRcode(dnsmessage.RCodeNameError), "truncated": func(m *dnsmessage.Message) { m.Truncated = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t, atSomewhere)
				query := ask(t, 1, "web.")
				know(t, r, query)
				know(t, r, query, change)
				replies, end := exchangeOver(t, r, &network{behave: dead}, query)
				if len(replies) != 1 || end != Patience || result(r, failed) != 1 {
					t.Errorf("told %v after %s", replies, end)
				}
			})
		})
	}
}

// A resolver that says that it doesn't know has said nothing; other refusals are its answer.
func TestServfailGivesWayToStale(t *testing.T) {
	for rcode, want := range map[dnsmessage.RCode]string{dnsmessage.RCodeServerFailure: stale, dnsmessage.RCodeRefused: answered} {
		synctest.Test(t, func(t *testing.T) {
			r := newRelay(t, atSomewhere)
			query := ask(t, 1, "web.")
			n := &network{behave: func(_ time.Duration, q []byte) (bool, time.Duration, []byte) {
				return false, time.Millisecond, answer(t, q, "198.18.0.9", withRcode(rcode))
			}}
			if replies, end := exchangeOver(t, r, n, query); len(replies) != 1 || end != time.Millisecond || unpack(t, replies[0].b).RCode != rcode {
				t.Errorf("with nothing known told %v after %s", replies, end)
			}
			know(t, r, query)
			before := result(r, want)
			if replies, end := exchangeOver(t, r, n, query); len(replies) != 1 || end != time.Millisecond || result(r, want) != before+1 {
				t.Errorf("%v: told %v after %s, want it %s", rcode, replies, end, want)
			}
		})
	}
}

func TestFollowsTheResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		other := netip.MustParseAddrPort("127.0.0.1:5353")
		r := newRelay(t, func() netip.AddrPort {
			switch since := time.Since(start); {
			case since < 50*time.Millisecond:
				return netip.AddrPort{} // none yet
			case since < 200*time.Millisecond:
				return somewhere
			}
			return other
		})
		n := &network{behave: func(at time.Duration, q []byte) (bool, time.Duration, []byte) {
			if at < 200*time.Millisecond {
				return false, 0, nil
			}
			return false, 0, answer(t, q, "198.18.0.1")
		}}
		replies, end := exchangeOver(t, r, n, ask(t, 1, "web."))
		if len(replies) != 1 || end != 300*time.Millisecond || !slices.Equal(n.to, []netip.AddrPort{somewhere, other}) {
			t.Errorf("told %v after %s, asked %v", replies, end, n.to)
		}
	})
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	for name, behave := range map[string]func(time.Duration, []byte) (bool, time.Duration, []byte){"silent": silent, "dead": dead} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t, atSomewhere)
				n := &network{start: time.Now(), behave: behave}
				r.dial = n.dial
				ctx, cancel := context.WithTimeout(t.Context(), 750*time.Millisecond)
				defer cancel()
				e := exchange{relay: r, query: parse(ask(t, 1, "web.")), reply: func(b []byte) { t.Errorf("told %x", b) }}
				e.run(ctx)
				if end := time.Since(n.start); end != 750*time.Millisecond {
					t.Errorf("ended after %s", end)
				}
			})
		})
	}
}
