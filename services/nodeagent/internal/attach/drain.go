package attach

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/standing"
)

// What is drained stays so over restarts of the agent: an application as long as it runs, the node until it is undone or
// rebooted.

// ErrNoApp says that no such application runs on this node.
var ErrNoApp = errors.New("no such application runs on this node")

// Drain is an application that is being drained.
type Drain struct {
	ax.App
	Own bool // itself, not only with its node
}

// OnChange sets who is told when what is wished of an application has changed; of all, if the id is empty. It is called
// before anything else.
func (m *Manager) OnChange(changed func(ax.AppID)) { m.changed = changed }

// Wishes returns what an application wants, and what is wanted of it.
func (m *Manager) Wishes(id ax.AppID) standing.Wishes {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.apps[id]
	if e == nil {
		return standing.Wishes{Draining: m.drained}
	}
	return standing.Wishes{Check: e.App.Check, Draining: m.drained || e.Drained}
}

// Drains returns the applications that are being drained, by id, and whether the node as a whole is.
func (m *Manager) Drains() (drains []Drain, node bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.apps {
		if e.attached && (e.Drained || m.drained) {
			drains = append(drains, Drain{App: e.App.App, Own: e.Drained})
		}
	}
	slices.SortFunc(drains, func(a, b Drain) int { return cmp.Compare(a.ID, b.ID) })
	return drains, m.drained
}

// Drain starts or ends the drain of an application, or of the node if id is empty.
func (m *Manager) Drain(id ax.AppID, on bool) error {
	if id == "" {
		return m.drainNode(on)
	}
	m.mu.Lock()
	e := m.apps[id]
	if e == nil {
		m.mu.Unlock()
		return fmt.Errorf("application %s: %w", id, ErrNoApp)
	}
	was := e.Drained
	e.Drained = on
	app, saved := m.published(e), e.record
	attached := e.attached
	m.mu.Unlock()
	if was != on {
		m.deps.Log.Info("application is drained", "app", id, "drained", on)
	}
	if attached {
		if err := m.store.put(saved); err != nil {
			m.deps.Log.Warn("the drain of an application won't survive a restart of the agent", "app", id, "error", err)
		}
		m.deps.Publisher.PutApp(app)
	}
	m.changed(id)
	return nil
}

func (m *Manager) drainNode(on bool) error {
	if err := m.store.setNodeDrained(on); err != nil {
		return err
	}
	m.mu.Lock()
	if m.drained != on {
		m.deps.Log.Info("node is drained", "drained", on)
	}
	m.drained = on
	var apps []ax.App
	for _, e := range m.apps {
		if e.attached {
			apps = append(apps, m.published(e))
		}
	}
	m.mu.Unlock()
	m.deps.Publisher.SetDraining(on)
	for _, app := range apps {
		m.deps.Publisher.PutApp(app)
	}
	m.changed("")
	return nil
}

// restoreDrain takes up the drain of the node that an earlier agent has left.
func (m *Manager) restoreDrain() {
	if m.drained = m.store.nodeDrained(); m.drained {
		m.deps.Log.Warn("the node is being drained, as before: no new connections to its applications")
		m.deps.Publisher.SetDraining(true)
	}
}

// published returns an application as it is to be in the table. The caller holds mu.
func (m *Manager) published(e *entry) ax.App {
	app := e.App.App
	app.Draining = m.drained || e.Drained
	return app
}

func (s store) drainPath() string { return s.dir + "/node.drained" }

func (s store) nodeDrained() bool {
	_, err := os.Stat(s.drainPath())
	return err == nil
}

func (s store) setNodeDrained(on bool) error {
	var err error
	if on {
		err = os.WriteFile(s.drainPath(), nil, 0o600)
	} else if err = os.Remove(s.drainPath()); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("note the drain of the node: %w", err)
	}
	return nil
}
