// Package seccomp is the user driver: it carries out an application's network system calls, which the kernel hands
// over by seccomp user notification, with real sockets of the host.
//
// One thread serves one application (task.go): it takes a call, answers at once whatever can't wait, and parks the
// rest in its epoll, so that no caller ever waits behind another. Invariant: a call's arguments are copied once, the
// call is then checked to be still waiting, and only the copy is acted upon. State is kept by socket cookie in
// package socktab and survives the agent; so do calls in flight (inflight.go).
// Start reading at [Driver.Attach] and at task.dispatch.
package seccomp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"appswitch.io/services/nodeagent/internal/flows"
	"appswitch.io/services/nodeagent/internal/portpool"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/internal/sys"
)

// Publisher makes listening sockets known to the cluster; publish.Publisher is one. Neither call may block.
type Publisher interface {
	PutEndpoint(ax.Endpoint)
	DropEndpoint(ax.EndpointID)
}

// Routes is the present routing snapshot; routes.Watcher is one.
type Routes interface {
	Snapshot() *route.Snapshot // nil until the first one came
	Ready() <-chan struct{}    // closed with the first one
}

// Conns counts the connections to endpoints, for balancing; conncount.Counter is one. Neither call may block.
type Conns interface {
	Opened(cookie uint64, proto ax.Protocol, host netip.AddrPort)
	Closed(cookie uint64)
}

// Relay answers the name lookups that arrive on an application's socket until ctx is done; dnsrelay.Relay is one.
type Relay interface {
	Serve(ctx context.Context, conn *net.UDPConn) error
}

// Config sets what the driver needs to know of its node.
type Config struct {
	NodeAddr netip.Addr
	// AgentTimeout bounds the wait of a connect for the first snapshot.
	AgentTimeout time.Duration
}

// Deps are what the driver works with. All are required.
type Deps struct {
	Log       *slog.Logger
	Table     *socktab.Table
	Ports     *portpool.Pool
	Routes    Routes
	Decider   *route.Decider
	Publisher Publisher
	Flows     *flows.Log
	Resolver  func() netip.AddrPort // where name lookups over TCP go; invalid if there is no resolver
	Metrics   *Metrics
	Relay     Relay
	Conns     Conns
	Outliers  *route.Outliers // what connects say of endpoints
}

// App is an application to serve.
type App struct {
	ax.App
	Scope       socktab.ScopeID // its loopback
	HostScope   bool            // its loopback is the host's own
	DNS         bool            // its name lookups go to the resolver
	Nameservers []netip.Addr    // those of its resolv.conf
	UDPFrom     int             // first descriptor number of its UDP sockets; 0: any, its filter stops all messages
	UID         uint32          // of the launcher: the only user, besides root, whose threads are served
}

// Driver serves applications, each on a thread of its own.
type Driver struct {
	cfg  Config
	deps Deps
	wg   sync.WaitGroup

	// mu guards tasks and stopped.
	mu      sync.Mutex
	tasks   map[ax.AppID]*task
	stopped bool
}

// New makes a driver that serves nothing yet.
func New(cfg Config, deps Deps) *Driver {
	return &Driver{cfg: cfg, deps: deps, tasks: map[ax.AppID]*task{}}
}

// ErrAttached says that the application is being served already.
var ErrAttached = errors.New("application is attached already")

// Handover is what comes from a launcher or holder.
type Handover struct {
	Listener int   // seccomp listener
	Journal  int   // memory file, the journal of calls in flight
	Kept     []int // what the last agent left with the holder (keep.go); none at first
	Ring     int   // where the holder keeps connections on their way (package vault); -1 from a launcher
}

// Close closes the descriptors.
func (h Handover) Close() {
	for _, fd := range append([]int{h.Listener, h.Journal, h.Ring}, h.Kept...) {
		if fd >= 0 {
			sys.Close(fd)
		}
	}
}

// Attach starts to serve an application, of whose descriptors the driver is the owner from now on, also on error. Calls that an earlier agent left unanswered are carried out again. Gone is
// called once, from the application's own thread, when its last process has exited.
func (d *Driver) Attach(app App, handed Handover, gone func()) error {
	t, err := newTask(d, app, handed, gone)
	if err != nil {
		d.deps.Metrics.HandoversRefused.Inc()
		d.deps.Log.Warn("what a launcher or holder has handed over is refused", "app", app.ID, "pid", app.PID, "uid", app.UID, "error", err)
		return fmt.Errorf("attach application %s: %w", app.ID, err)
	}
	d.mu.Lock()
	if d.stopped || d.tasks[app.ID] != nil {
		d.mu.Unlock()
		t.close()
		return ErrAttached
	}
	d.tasks[app.ID] = t
	d.mu.Unlock()
	d.wg.Go(func() {
		exited := t.run()
		d.mu.Lock()
		delete(d.tasks, app.ID)
		d.mu.Unlock()
		if exited { // last: who attaches again from here on must not find the task
			t.gone()
		}
	})
	return nil
}

// Entrust gives an application that is served already the ring of its holder. It owns the descriptor, which may be -1.
func (d *Driver) Entrust(id ax.AppID, ring int) {
	if ring < 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t == nil || !t.post(func() { t.vault.Entrust(ring) }) {
		sys.Close(ring)
	}
}

// Keepsakes returns copies of the descriptors that are to survive the agent, for the application's holder.
func (d *Driver) Keepsakes(id ax.AppID) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t != nil {
		return t.keepsakes()
	}
	return nil
}

// Attached reports whether the application is being served.
func (d *Driver) Attached(id ax.AppID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tasks[id] != nil
}

func (d *Driver) appOf(id ax.AppID) (App, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t != nil {
		return t.app, true
	}
	return App{}, false
}

// Run wakes connects when the first snapshot comes, and returns when ctx is done and every application has been let
// go: their calls wait for the next agent.
func (d *Driver) Run(ctx context.Context) error {
	select {
	case <-d.deps.Routes.Ready():
		d.each(func(t *task) { t.post(t.retrySnapshotWaiters) })
		<-ctx.Done()
	case <-ctx.Done():
	}
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	d.each(func(t *task) { t.post(func() { t.stop = true }) })
	d.join()
	return nil
}

// interruptInterval is how often a task that was told to stop is interrupted until it does: it may just have been about
// to wait for a call.
const interruptInterval = 5 * time.Millisecond

// join waits for the tasks to end.
func (d *Driver) join() {
	ended := make(chan struct{})
	go func() {
		d.wg.Wait()
		close(ended)
	}()
	tick := time.NewTicker(interruptInterval)
	defer tick.Stop()
	for {
		d.each(func(t *task) {
			if tid := t.tid.Load(); tid != 0 {
				sys.Interrupt(int(tid))
			}
		})
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

func (d *Driver) each(f func(*task)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tasks {
		f(t)
	}
}

// SocketClosed takes a closed socket out of the table, the port pool and the service table. It is called for every
// socket that the kernel reports as destroyed, managed or not.
func (d *Driver) SocketClosed(cookie uint64) {
	s, ok := d.deps.Table.Remove(cookie, time.Now())
	if !ok {
		return
	}
	d.released(s)
}

// released gives back what a binding held.
func (d *Driver) released(s socktab.Socket) {
	if s.Pooled {
		d.deps.Ports.Release(s.Host.Port())
	}
	if s.Published && !d.deps.Table.Listens(s) {
		d.deps.Publisher.DropEndpoint(ax.MakeEndpointID(s.App, s.Proto, s.Service, s.Host.Port()))
	}
}
