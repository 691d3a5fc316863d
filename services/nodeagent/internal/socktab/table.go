package socktab

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"appswitch.io/internal/ax"
)

// GhostTime is for how long a closed outgoing connection is remembered: the server may accept it late, from a full
// accept queue, and must still learn who connected.
const GhostTime = 60 * time.Second

// MaxGhosts bounds them; beyond it the oldest is forgotten, and its connection, if it is ever accepted, closed.
const MaxGhosts = 1 << 16

// Journal keeps records over a restart of the agent; journal.File is one.
type Journal interface {
	Alloc() (slot int, err error)
	Put(slot int, data []byte)
	Free(slot int)
}

// Table holds the sockets of all applications of the node. It is safe for concurrent use.
type Table struct {
	journal Journal
	log     *slog.Logger

	// mu guards everything below.
	mu      sync.Mutex
	sockets map[uint64]*Socket
	flows   map[tuple]*Socket // outgoing connections by their real addresses
	clock   Ticket
	intents []intent                    // few: a thread of the agent has one at a time
	waiters map[netip.AddrPort][]func() // accepts that wait for flows to a real address
	ghosts  []*Socket                   // closed outgoing connections, oldest first
	scopes  map[ScopeID]*Scope
	udp     map[uint16][]*Socket // UDP sockets by the port of their real address
	record  [RecordSize]byte     // one that is being written

	forgotten uint64    // sessions
	grace     time.Time // until then a missing flow may still be announced: the agent has just restarted
}

type tuple struct{ client, server netip.AddrPort }

// New makes an empty table; journal may be nil for one that does not survive a restart.
func New(journal Journal, log *slog.Logger) *Table {
	return &Table{
		journal: journal, log: log,
		sockets: map[uint64]*Socket{}, flows: map[tuple]*Socket{},
		waiters: map[netip.AddrPort][]func(){},
		scopes:  map[ScopeID]*Scope{},
		udp:     map[uint16][]*Socket{},
	}
}

// Add enters a new socket, or a known one anew.
func (t *Table) Add(s Socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.slot = noSlot
	if old := t.sockets[s.Cookie]; old != nil {
		t.unbind(old)
		t.unindex(old)
		t.forget(old) // its place in the journal
	}
	t.insert(&s)
	t.save(&s)
}

func (t *Table) insert(s *Socket) {
	t.sockets[s.Cookie] = s
	t.index(s)
	if s.Outgoing() {
		t.flows[tuple{s.Host, s.HostPeer}] = s
	}
}

// Get returns a copy of a socket's entry.
func (t *Table) Get(cookie uint64) (Socket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sockets[cookie]
	if !ok {
		return Socket{}, false
	}
	return *s, true
}

// Update changes a socket's entry; change must be quick and must not call the table. It reports whether there was one.
func (t *Table) Update(cookie uint64, change func(*Socket)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sockets[cookie]
	if !ok {
		return false
	}
	if s.Outgoing() {
		t.dropFlow(s)
	}
	host := s.Host
	t.unindex(s)
	change(s)
	t.index(s)
	if s.Host.Port() != host.Port() {
		s.sessions = nil // the others know it by its old address
	}
	if s.Outgoing() {
		t.flows[tuple{s.Host, s.HostPeer}] = s
	}
	t.save(s)
	return true
}

// Remove forgets a socket that is closed, and returns its last entry.
func (t *Table) Remove(cookie uint64, now time.Time) (Socket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sockets[cookie]
	if !ok {
		return Socket{}, false
	}
	delete(t.sockets, cookie)
	t.unbind(s)
	t.unindex(s)
	if s.Outgoing() && !s.admitted {
		s.ghost = now.Add(GhostTime)
		t.addGhost(s)
	} else {
		t.forget(s)
	}
	return *s, true
}

// ExpireGhosts forgets closed outgoing connections that nobody asked for in time.
func (t *Table) ExpireGhosts(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.ghosts) && (t.ghosts[n].admitted || !t.ghosts[n].ghost.After(now)) {
		t.forget(t.ghosts[n])
		n++
	}
	t.ghosts = slices.Delete(t.ghosts, 0, n)
}

func (t *Table) addGhost(s *Socket) {
	if len(t.ghosts) >= MaxGhosts {
		t.forget(t.ghosts[0])
		t.ghosts = slices.Delete(t.ghosts, 0, 1)
	}
	t.ghosts = append(t.ghosts, s)
}

func (t *Table) forget(s *Socket) {
	t.dropFlow(s)
	if s.slot != noSlot && t.journal != nil {
		t.journal.Free(s.slot)
		s.slot = noSlot
	}
}

func (t *Table) dropFlow(s *Socket) {
	key := tuple{s.Host, s.HostPeer}
	if t.flows[key] == s {
		delete(t.flows, key)
	}
}

// Listens reports whether another socket still listens for the same endpoint: a member of a SO_REUSEPORT group.
func (t *Table) Listens(closed Socket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sockets {
		if s.Serves() && s.App == closed.App && s.Proto == closed.Proto && s.Host == closed.Host && s.Service == closed.Service {
			return true
		}
	}
	return false
}

// Listener returns the socket of an application that listens at a real address; of a SO_REUSEPORT group, one of them.
func (t *Table) Listener(app ax.AppID, host netip.AddrPort) (Socket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sockets {
		if s.State == Listening && s.App == app && s.Proto == ax.TCP && s.Host == host {
			return *s, true
		}
	}
	return Socket{}, false
}

// RemoveApp forgets the sockets of an application that has exited, except those that are still open because another
// application holds them; those the kernel will report.
func (t *Table) RemoveApp(app ax.AppID, now time.Time) {
	t.mu.Lock()
	var gone []uint64
	for cookie, s := range t.sockets {
		if s.App == app && !s.Host.IsValid() {
			gone = append(gone, cookie)
		}
	}
	t.mu.Unlock()
	for _, cookie := range gone {
		t.Remove(cookie, now)
	}
}

// List returns the sockets of one application, or of all if app is empty, by application and cookie.
func (t *Table) List(app ax.AppID) []Socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Socket
	for _, s := range t.sockets {
		if app == "" || s.App == app {
			out = append(out, *s)
		}
	}
	slices.SortFunc(out, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Cookie, b.Cookie))
	})
	return out
}

// Len returns how many sockets are open.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sockets)
}
