package attach

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/admission"
	"appswitch.io/services/nodeagent/internal/driver/seccomp"
	"appswitch.io/services/nodeagent/internal/publish"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/launch/wire"
	"github.com/google/uuid"
)

const (
	// reattachTime is for how long an application saved by an earlier agent may stay away before it counts as gone.
	reattachTime = 10 * time.Second
	claimTimeout = 5 * time.Second
	maxCommand   = 256 // bytes of a command line in the service table
	maxName      = 253 // bytes of a name, RFC 1035
)

// Driver takes over an application's calls; seccomp.Driver is one.
type Driver interface {
	Attach(app seccomp.App, handed seccomp.Handover, gone func()) error
	Attached(ax.AppID) bool
	Entrust(id ax.AppID, ring int)
	Keepsakes(ax.AppID) []int
}

// Publisher makes applications and their addresses known; publish.Publisher is one.
type Publisher interface {
	PutApp(ax.App)
	DropApp(ax.AppID)
	// SetDraining says whether the node as a whole is being drained.
	SetDraining(bool)
	// Claim claims an address, or finds or makes up the one of a name.
	Claim(ctx context.Context, name string, ip netip.Addr) (netip.Addr, error)
}

// Config sets what the manager needs to know of its node.
type Config struct {
	Node         ax.Node
	AgentTimeout time.Duration
	DNS          bool // there is a resolver
	StateDir     string
	Clean        bool // drop what an earlier agent saved
}

// Deps are what the manager works with. All are required.
type Deps struct {
	Log       *slog.Logger
	Driver    Driver
	Publisher Publisher
	Table     *socktab.Table
	Gate      *admission.Gate // of what unprivileged clients claim
}

// Manager knows the node's applications.
type Manager struct {
	cfg   Config
	deps  Deps
	store store
	own   socktab.ScopeID // the agent's own network namespace: the host's
	netns string          // the same, as /proc/self/ns/net names it

	// mu guards what follows.
	mu      sync.Mutex
	apps    map[ax.AppID]*entry
	drained bool // the node
	changed func(ax.AppID)
}

type entry struct {
	record
	attached bool
	expire   time.Time // until then it must be attached
}

// NewManager opens the saved state and takes up the applications in it: they count as running until they fail to
// attach again in time.
func NewManager(cfg Config, deps Deps) (*Manager, error) {
	st, err := openStore(cfg.StateDir, cfg.Clean)
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, deps: deps, store: st, apps: map[ax.AppID]*entry{}}
	if m.own, err = scopeOf(os.Getpid()); err != nil {
		return nil, err
	}
	if m.netns, err = os.Readlink("/proc/self/ns/net"); err != nil {
		return nil, fmt.Errorf("find network namespace: %w", err)
	}
	saved, err := st.load()
	if err != nil {
		deps.Log.Warn("some saved applications are lost", "error", err)
	}
	for _, r := range saved {
		m.apps[r.App.ID] = &entry{record: r, expire: time.Now().Add(reattachTime)}
	}
	m.restoreDrain()
	for _, e := range m.apps {
		deps.Publisher.PutApp(m.published(e))
	}
	return m, nil
}

// Run drops applications that don't attach in time, until ctx is done.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			m.mu.Lock()
			var late []*entry
			for _, e := range m.apps {
				if !e.attached && now.After(e.expire) {
					late = append(late, e)
				}
			}
			m.mu.Unlock()
			for _, e := range late {
				m.gone(e)
			}
			m.deps.Table.ExpireGhosts(now)
		}
	}
}

// List returns the applications, by id.
func (m *Manager) List() []ax.App {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []ax.App
	for _, e := range m.apps {
		if e.attached {
			out = append(out, e.App.App)
		}
	}
	slices.SortFunc(out, func(a, b ax.App) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

// Identity returns the name and labels of an application; nothing if there is none such. The labels are shared.
func (m *Manager) Identity(id ax.AppID) (name string, labels ax.Labels) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.apps[id]; e != nil {
		return e.App.Name, e.App.Labels
	}
	return "", nil
}

// Saved returns the applications that an earlier agent has served.
func (m *Manager) Saved() []seccomp.App {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []seccomp.App
	for _, e := range m.apps {
		out = append(out, e.App)
	}
	return out
}

// Hello grants an identity.
func (m *Manager) Hello(ctx context.Context, p peer, h wire.Hello) (*wire.Welcome, error) {
	if err := readable(h.NewNetns); err != nil {
		return nil, err
	}
	app, err := m.identity(p, h)
	if err != nil {
		return nil, err
	}
	if err := m.claim(ctx, &app, h); err != nil {
		return nil, err
	}
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	e := &entry{record: record{App: app, Token: hex.EncodeToString(secret[:]), Hello: h}, expire: time.Now().Add(helloAfter)}
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		e.App.ID = newAppID()
		if m.apps[e.App.ID] == nil {
			break
		}
	}
	m.apps[e.App.ID] = e
	return &wire.Welcome{
		Version: wire.Version, AppID: string(e.App.ID), Token: e.Token, IP: app.Addr.String(), Second: m.second(app.Addr),
		AgentTimeout: int(m.cfg.AgentTimeout.Milliseconds()), ResolvConf: app.DNS, Netns: m.netns,
	}, nil
}

func newAppID() ax.AppID {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return ax.AppID(hex.EncodeToString(b[:]))
}

// identity checks a request and what its sender may ask for.
func (m *Manager) identity(p peer, h wire.Hello) (seccomp.App, error) {
	invalid := func(format string, args ...any) (seccomp.App, error) {
		return seccomp.App{}, &wire.Error{Code: wire.CodeInvalid, Message: fmt.Sprintf(format, args...)}
	}
	app := seccomp.App{
		App: ax.App{
			Name: "<" + uuid.NewString() + ">", Node: m.cfg.Node.Name, Cluster: m.cfg.Node.Cluster, Addr: m.cfg.Node.Addr, Driver: "user",
			Labels: ax.DefaultLabels(), PID: p.pid, Command: command(h.Command), Start: time.Now().UTC(),
		},
		DNS: h.DNS && m.cfg.DNS, UID: p.uid,
	}
	var err error
	if app.Check, err = healthCheck(h); err != nil {
		return invalid("%v", err)
	}
	if len(h.Labels) > 0 {
		app.Labels = h.Labels
		if err := app.Labels.Validate(); err != nil {
			return invalid("--labels: %v", err)
		}
	}
	if h.IP != "" {
		if app.Addr, err = virtualAddr(h.IP, hasIPv6); err != nil {
			return invalid("%v", err)
		}
	}
	if h.Name != "" {
		if !m.cfg.DNS {
			return invalid("--name %q: names need the DNS server, which this daemon runs without (--dns=false)", h.Name)
		}
		if err := checkName(h.Name); err != nil {
			return invalid("--name %q: %v", h.Name, err)
		}
		app.Name = strings.ToLower(h.Name)
	}
	return app, m.admit(p, app, h)
}

// admit refuses what the peer may not claim.
func (m *Manager) admit(p peer, app seccomp.App, h wire.Hello) error {
	if h.IP == "" && h.Name == "" && len(h.Labels) == 0 {
		return nil
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	claims := admission.Claims{Labels: h.Labels}
	if h.IP != "" {
		claims.IP = app.Addr
	}
	if h.Name != "" {
		claims.Name = app.Name
	}
	if why := m.deps.Gate.Admit(client, claims); why != "" {
		return &wire.Error{Code: wire.CodeDenied, Message: why}
	}
	return nil
}

// claim has the registry reserve the application's address, and finds the address of a name that came without one.
func (m *Manager) claim(ctx context.Context, app *seccomp.App, h wire.Hello) error {
	if h.IP == "" && h.Name == "" {
		return nil
	}
	var ip netip.Addr
	if h.IP != "" {
		ip = app.Addr
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	addr, err := m.deps.Publisher.Claim(ctx, app.DNSName(), ip)
	switch {
	case err == nil:
		app.Addr = addr
	case !errors.Is(err, publish.ErrUnavailable): // the registry says no
		return &wire.Error{Code: wire.CodeInvalid, Message: err.Error()}
	case ip.IsValid():
		// The address is known, so the program can start; the application's record will claim it.
		m.deps.Log.Warn("address is not claimed yet: the registry is away", "ip", ip, "error", err)
	default:
		return &wire.Error{Code: wire.CodeUnavailable, Message: fmt.Sprintf("--name %q: no address for it, because the registry can't be reached: %v", h.Name, err)}
	}
	return nil
}

// Keepsakes returns descriptors for an application's holder to keep; the caller closes them.
func (m *Manager) Keepsakes(id ax.AppID) []int { return m.deps.Driver.Keepsakes(id) }

// Attach takes over an application's calls. It owns the descriptors.
func (m *Manager) Attach(ctx context.Context, p peer, a wire.Attach, handed seccomp.Handover) error {
	e, err := m.entry(ctx, p, a)
	if err == nil && e.attached && m.deps.Driver.Attached(e.App.ID) {
		m.deps.Driver.Entrust(e.App.ID, handed.Ring)
		handed.Ring = -1
		handed.Close() // the holder: the rest are copies of what the launcher sent
		return nil
	}
	if err == nil && !a.Holder {
		e.App.UDPFrom = a.Hello.UDPFrom
		err = m.place(ctx, e, p, a)
	}
	if err != nil {
		handed.Close()
		return err
	}
	if err := m.store.put(e.record); err != nil {
		m.deps.Log.Warn("application won't survive a restart of the agent", "app", e.App.ID, "error", err)
	}
	m.mu.Lock()
	e.attached = true
	app := m.published(e)
	m.mu.Unlock()
	m.deps.Publisher.PutApp(app) // before gone can be called: a program may end at once
	if err := m.deps.Driver.Attach(e.App, handed, func() { m.gone(e) }); err != nil && !errors.Is(err, seccomp.ErrAttached) {
		m.gone(e)
		return fmt.Errorf("take over system calls: %w", err)
	}
	m.mu.Lock()
	known := m.apps[e.App.ID] == e
	m.mu.Unlock()
	if !known { // it ended while its holder was on the way, and was forgotten before it was announced here
		m.deps.Publisher.DropApp(e.App.ID)
	}
	return nil
}

// entry finds the identity that is taken up, or makes it again for an agent that has lost its state.
func (m *Manager) entry(ctx context.Context, p peer, a wire.Attach) (*entry, error) {
	m.mu.Lock()
	e := m.apps[ax.AppID(a.AppID)]
	m.mu.Unlock()
	if e != nil {
		if subtle.ConstantTimeCompare([]byte(e.Token), []byte(a.Token)) != 1 {
			return nil, &wire.Error{Code: wire.CodeUnknownApp, Message: "application " + a.AppID + ": wrong token"}
		}
		return e, nil
	}
	if b, err := hex.DecodeString(a.AppID); !a.Holder || err != nil || len(b) != 4 || a.Token == "" {
		return nil, &wire.Error{Code: wire.CodeUnknownApp, Message: "application " + a.AppID + " is unknown"}
	}
	app, err := m.identity(p, a.Hello)
	if err != nil {
		return nil, err
	}
	if err := m.claim(ctx, &app, a.Hello); err != nil {
		return nil, err
	}
	app.ID, app.UDPFrom = ax.AppID(a.AppID), a.Hello.UDPFrom
	e = &entry{record: record{App: app, Token: a.Token, Hello: a.Hello}, expire: time.Now().Add(helloAfter)}
	if err := m.place(ctx, e, p, a); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if other := m.apps[app.ID]; other != nil {
		return other, nil
	}
	m.apps[app.ID] = e
	return e, nil
}

// gone forgets an application that has exited.
func (m *Manager) gone(e *entry) {
	m.mu.Lock()
	if m.apps[e.App.ID] != e {
		m.mu.Unlock()
		return
	}
	delete(m.apps, e.App.ID)
	m.mu.Unlock()
	if err := m.store.drop(e.record); err != nil {
		m.deps.Log.Warn("saved application stays behind", "app", e.App.ID, "error", err)
	}
	m.deps.Table.RemoveApp(e.App.ID, time.Now())
	m.deps.Publisher.DropApp(e.App.ID)
}
