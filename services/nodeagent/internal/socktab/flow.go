package socktab

import (
	"net/netip"
	"slices"
	"time"
)

// RestartGrace is for how long after a restart an accept waits for a connect that the previous agent had begun.
const RestartGrace = 2 * time.Second

// Peer is who connects, as the server sees it.
type Peer struct {
	Local  netip.AddrPort // virtual address at which the server was reached
	Remote netip.AddrPort // virtual address of the client
}

// Admission is the answer to "who is this connection from".
type Admission uint8

// The admissions.
const (
	Unknown Admission = iota // nobody announced it: close it
	Known                    // announced
	Pending                  // a connect is under way that may be it: ask again when woken
)

// Ticket numbers the intentions and the questions after them: time, as admission sees it.
type Ticket uint64

// intent is a connect under way to a real address that has no flow yet.
type intent struct {
	server netip.AddrPort
	ticket Ticket
}

// Intend announces that a connect to a real address is about to start; Settle must follow. In between, an accept
// that finds an unknown client waits instead of closing the connection.
func (t *Table) Intend(server netip.AddrPort) Ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock++
	t.intents = append(t.intents, intent{server, t.clock})
	return t.clock
}

// Settle ends an intention, after the socket's entry was updated with its real addresses, or the connect failed.
func (t *Table) Settle(server netip.AddrPort, ticket Ticket) {
	t.mu.Lock()
	t.intents = slices.DeleteFunc(t.intents, func(i intent) bool { return i.ticket == ticket })
	waiters := t.waiters[server]
	delete(t.waiters, server)
	t.mu.Unlock()
	for _, woken := range waiters { // without the lock: waking a thread is a system call
		woken()
	}
}

// Grace returns until when a connect may still become known that the previous agent had begun.
func (t *Table) Grace() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.grace
}

// underWay reports whether a connect to a real address was begun before a question was asked, and is not settled.
func (t *Table) underWay(server netip.AddrPort, asked Ticket) bool {
	return slices.ContainsFunc(t.intents, func(i intent) bool { return i.server == server && i.ticket < asked })
}

// Admit asks who is at the other end of an accepted connection, given by its real addresses. Pending: a connect that
// was begun before the question was first asked may be it; woken, if given, is called once, when it is worth to ask again
// with the ticket returned, and must not block. The first time the ticket is 0.
func (t *Table) Admit(client, server netip.AddrPort, asked Ticket, now time.Time, woken func()) (Peer, Admission, Ticket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if asked == 0 {
		t.clock++
		asked = t.clock
	}
	if s, ok := t.flows[tuple{client, server}]; ok {
		s.admitted = true
		return Peer{Local: s.Peer, Remote: s.Local}, Known, asked
	}
	if t.underWay(server, asked) || now.Before(t.grace) {
		if woken != nil {
			t.waiters[server] = append(t.waiters[server], woken)
		}
		return Peer{}, Pending, asked
	}
	return Peer{}, Unknown, asked
}
