package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/driver/seccomp"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/launch/wire"
)

// idleDriver serves programs that run on.
type idleDriver struct{ Driver }

func (idleDriver) Attach(seccomp.App, seccomp.Handover, func()) error { return nil }

// tableView is what is in the service table.
type tableView struct {
	apps     map[ax.AppID]ax.App
	draining bool
}

func (v *tableView) PutApp(a ax.App)     { v.apps[a.ID] = a }
func (v *tableView) DropApp(id ax.AppID) { delete(v.apps, id) }
func (v *tableView) SetDraining(on bool) { v.draining = on }
func (v *tableView) Claim(context.Context, string, netip.Addr) (netip.Addr, error) {
	return netip.Addr{}, nil
}

// drained is a manager of one application, with the directory of its state.
func drained(t *testing.T, dir string) (*Manager, *tableView, *[]ax.AppID) {
	t.Helper()
	log, view, changes := slog.New(slog.DiscardHandler), &tableView{apps: map[ax.AppID]ax.App{}}, &[]ax.AppID{}
	m, err := NewManager(Config{Node: ax.Node{Name: "n1", Addr: netip.MustParseAddr("10.0.0.1")}, StateDir: dir},
		Deps{Log: log, Driver: idleDriver{}, Publisher: view, Table: socktab.New(nil, log), Gate: newGate(t)})
	if err != nil {
		t.Fatal(err)
	}
	m.OnChange(func(id ax.AppID) { *changes = append(*changes, id) })
	return m, view, changes
}

func start(t *testing.T, m *Manager, h wire.Hello) (ax.AppID, error) {
	t.Helper()
	p := peer{pid: os.Getpid(), privileged: true}
	w, err := m.Hello(t.Context(), p, h)
	if err != nil {
		return "", err
	}
	return ax.AppID(w.AppID), m.Attach(t.Context(), p, wire.Attach{AppID: w.AppID, Token: w.Token, PID: os.Getpid()}, seccomp.Handover{Listener: -1, Journal: -1, Ring: -1})
}

// TestDrainSurvivesTheAgent: what is drained is so in the table, and for the next agent.
func TestDrainSurvivesTheAgent(t *testing.T) {
	dir := t.TempDir()
	m, view, changes := drained(t, dir)
	id, err := start(t, m, wire.Hello{Command: []string{"sleep"}, Health: []string{"check=tcp", "interval=1s"}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := start(t, m, wire.Hello{Command: []string{"sleep"}})
	if err != nil {
		t.Fatal(err)
	}
	state := func(m *Manager, view *tableView) string {
		drains, node := m.Drains()
		out := fmt.Sprintf("%v/%v", node, view.draining)
		for _, d := range drains {
			name := map[ax.AppID]string{id: "first", other: "second"}[d.ID]
			out += fmt.Sprintf(" %s own=%v table=%v wish=%v", name, d.Own, view.apps[d.ID].Draining, m.Wishes(d.ID).Draining)
		}
		return out
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("at first", state(m, view), "false/false")
	for range 2 {
		if err := m.Drain(id, true); err != nil {
			t.Fatal(err)
		}
	}
	expect("drained", state(m, view), "false/false first own=true table=true wish=true")
	expect("told", fmt.Sprint(*changes), fmt.Sprint([]ax.AppID{id, id}))
	if m.Wishes(id).Check.Type != ax.CheckTCP || m.Wishes(other).Draining {
		t.Errorf("wishes %+v, %+v", m.Wishes(id), m.Wishes(other))
	}
	if err := m.Drain("00000000", true); !errors.Is(err, ErrNoApp) {
		t.Errorf("an unknown application: %v", err)
	}

	again, view2, _ := drained(t, dir)
	if !view2.apps[id].Draining || view2.apps[other].Draining || !again.Wishes(id).Draining || again.Wishes(id).Check.Type != ax.CheckTCP {
		t.Errorf("after a restart: %+v", view2.apps)
	}
	if err := m.Drain(id, false); err != nil {
		t.Fatal(err)
	}
	expect("undone", state(m, view), "false/false")

	if err := m.Drain("", true); err != nil {
		t.Fatal(err)
	}
	if got := state(m, view); strings.Count(got, "own=false table=true wish=true") != 2 || !strings.HasPrefix(got, "true/true") {
		t.Errorf("the node: %s", got)
	}
	if again, view2, _ = drained(t, dir); !view2.draining || !again.Wishes("any").Draining || !view2.apps[id].Draining {
		t.Errorf("the node after a restart: %+v", view2)
	}
	for range 2 {
		if err := m.Drain("", false); err != nil {
			t.Fatal(err)
		}
	}
	expect("undone for the node", state(m, view), "false/false")
}

func TestHealthOfARequest(t *testing.T) {
	m, _, _ := drained(t, t.TempDir())
	for option, want := range map[string]string{"check=udp": "--health-check", "interval=1s": "--health-check: missing", "colour=red": "--health-colour"} {
		if _, err := start(t, m, wire.Hello{Command: []string{"true"}, Health: []string{option}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", option, err, want)
		}
	}
}
