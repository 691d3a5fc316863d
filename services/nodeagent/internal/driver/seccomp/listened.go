package seccomp

import (
	"slices"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
)

const (
	// publishWait bounds how long listen(2) is held back until the service is known. It answers all the same: a server starts
	// while no registry can be reached.
	publishWait = 250 * time.Millisecond
	// publishPoll is how often it is looked whether it is. It takes a few milliseconds.
	publishPoll = time.Millisecond
)

// listened answers a listen that was carried out. A program may tell somebody its port in the next instant (FTP's passive
// mode does), who then connects at once: natively that can't fail. So the answer waits until the routes of this node, which come
// as soon as those of the others, lead there.
func (t *task) listened(c *call, cookie uint64) {
	s, ok := t.d.deps.Table.Get(cookie)
	if !ok || !s.Published || t.routed(s) {
		t.fail(c, 0)
		return
	}
	end := now().Add(publishWait)
	var p *parked
	var look func()
	look = func() {
		if !t.routed(s) && now().Before(end) {
			t.repark(p, now().Add(publishPoll), look)
			return
		}
		t.unpark(p)
		t.fail(c, 0)
	}
	p = t.park(c, now().Add(publishPoll), look, func() {})
}

// routed reports whether the routes lead to a listening socket.
func (t *task) routed(s socktab.Socket) bool {
	snapshot := t.d.deps.Routes.Snapshot()
	if snapshot == nil {
		return false
	}
	id := ax.MakeEndpointID(s.App, s.Proto, s.Service, s.Host.Port())
	return slices.ContainsFunc(snapshot.HostEndpoint(s.Proto, s.Host), func(e *ax.Endpoint) bool { return e.ID == id })
}
