package socktab

import (
	"net/netip"
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

// Intend announces that a connect to a real address is about to start; Settle must follow. In between, an accept
// that finds an unknown client waits instead of closing the connection.
func (t *Table) Intend(server netip.AddrPort) {
	t.mu.Lock()
	t.intents[server]++
	t.mu.Unlock()
}

// Settle ends an intention, after the socket's entry was updated with its real addresses, or the connect failed.
func (t *Table) Settle(server netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.intents[server]--; t.intents[server] <= 0 {
		delete(t.intents, server)
	}
	t.wake(server)
}

// wake runs what waits for flows to a real address.
func (t *Table) wake(server netip.AddrPort) {
	for _, f := range t.waiters[server] {
		f()
	}
	delete(t.waiters, server)
}

// Admit asks who is at the other end of an accepted connection, given by its real addresses. Pending: woken is called
// once, when it is worth to ask again; it must not block and must not call the table.
func (t *Table) Admit(client, server netip.AddrPort, now time.Time, woken func()) (Peer, Admission) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.flows[tuple{client, server}]; ok {
		s.admitted = true
		return Peer{Local: s.Peer, Remote: s.Local}, Known
	}
	if t.intents[server] > 0 || now.Before(t.grace) {
		t.waiters[server] = append(t.waiters[server], woken)
		return Peer{}, Pending
	}
	return Peer{}, Unknown
}
