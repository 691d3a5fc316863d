package socktab

import "net/netip"

// A probe is a connection of the agent's own to an application of its node, to see how that is. It belongs to no
// application, so it is not in the table; but the application's accept has to admit it, and it alone.

// Probe is a connection that the agent has announced.
type Probe struct {
	t    *Table
	flow *Socket
}

// Announce lets the connection of the agent from client to server, both real addresses, be admitted as coming from peer.
// The caller holds the connection until it ends the announcement. As with any connect, an Intend comes first.
func (t *Table) Announce(client, server netip.AddrPort, peer Peer) *Probe {
	s := &Socket{Host: client, HostPeer: server, Peer: peer.Local, Local: peer.Remote, slot: noSlot}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flows[tuple{client, server}] = s
	return &Probe{t: t, flow: s}
}

// End takes the announcement back. It comes before the connection is closed: from then on others may have its address. A
// server that accepts later finds a connection that nobody announced, and closed.
func (p *Probe) End() {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.t.dropFlow(p.flow)
}
