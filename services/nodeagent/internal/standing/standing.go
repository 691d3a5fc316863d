// Package standing publishes this node's endpoints as they stand: what listens, with what its checks say of it, and
// whether it is being drained.
//
// Invariant: what was published last for an endpoint is what follows from what was last said about it, in whatever order
// and by whomever: one lock spans looking and publishing, and publishing never waits. Start reading at [Board].
package standing

import (
	"sync"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/health"
)

// Publisher makes endpoints known to the cluster; publish.Publisher is one. No call may block.
type Publisher interface {
	PutEndpoint(ax.Endpoint)    // it has begun to listen
	UpdateEndpoint(ax.Endpoint) // it is another one
	DropEndpoint(ax.EndpointID)
}

// Checker checks endpoints; health.Checker is one. No call may block, or tell of a change before it has returned.
type Checker interface {
	Watch(health.Target)
	Forget(ax.EndpointID)
}

// Wishes is what an application wants, and what is wanted of it.
type Wishes struct {
	Check    ax.HealthCheck
	Draining bool
}

// Board knows the endpoints of this node. It is safe for concurrent use.
type Board struct {
	publisher Publisher
	checker   Checker
	wishes    func(ax.AppID) Wishes

	mu        sync.Mutex // guards what follows
	endpoints map[ax.EndpointID]*entry
}

type entry struct {
	ax.Endpoint           // as it listens
	health      ax.Health // of its own check
	checked     bool
}

// New makes an empty board. Connect follows.
func New(publisher Publisher) *Board {
	return &Board{publisher: publisher, endpoints: map[ax.EndpointID]*entry{}}
}

// Connect says who checks endpoints, and who knows what is wished. It is called before all other methods.
func (b *Board) Connect(checker Checker, wishes func(ax.AppID) Wishes) {
	b.checker, b.wishes = checker, wishes
}

// PutEndpoint enters an endpoint that has begun to listen.
func (b *Board) PutEndpoint(e ax.Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.wishes(e.App)
	entry := &entry{Endpoint: e}
	if old := b.endpoints[e.ID]; old != nil {
		entry.health = old.health
	}
	b.endpoints[e.ID] = entry
	b.publisher.PutEndpoint(b.stands(entry, w))
	if w.Check.Type != "" && e.Proto == ax.TCP && (w.Check.Port == 0 || w.Check.Port == e.Service.Port()) {
		entry.checked = true
		b.checker.Watch(health.Target{ID: e.ID, Check: w.Check, Service: e.Service, Host: e.Host})
	}
}

// DropEndpoint takes an endpoint out.
func (b *Board) DropEndpoint(id ax.EndpointID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.endpoints[id]; e != nil {
		if e.checked {
			b.checker.Forget(id)
		}
		delete(b.endpoints, id)
		b.refresh(e.App) // the check of this one may have been theirs
	}
	b.publisher.DropEndpoint(id)
}

// SetHealth enters what the check of an endpoint says.
func (b *Board) SetHealth(id ax.EndpointID, h ax.Health) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.endpoints[id]; e != nil {
		e.health = h
		b.refresh(e.App)
	}
}

// Refresh looks anew at what is wished of an application; of all if id is empty.
func (b *Board) Refresh(id ax.AppID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refresh(id)
}

func (b *Board) refresh(id ax.AppID) {
	for _, e := range b.endpoints {
		if id == "" || e.App == id {
			b.publisher.UpdateEndpoint(b.stands(e, b.wishes(e.App)))
		}
	}
}

// stands returns an endpoint as it is to be published. The caller holds mu.
func (b *Board) stands(e *entry, w Wishes) ax.Endpoint {
	out := e.Endpoint
	out.Draining = w.Draining
	out.Health = e.health
	if w.Check.Port == 0 {
		return out
	}
	// One port speaks for the application; if it is bad anywhere, it is bad.
	for _, other := range b.endpoints {
		if other.App == e.App && other.checked && other.health.State > out.Health.State {
			out.Health = other.health
		}
	}
	return out
}
