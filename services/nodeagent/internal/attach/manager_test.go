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
	"appswitch.io/services/nodeagent/internal/admission"
	"appswitch.io/services/nodeagent/internal/driver/seccomp"
	"appswitch.io/services/nodeagent/internal/publish"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/launch/wire"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// swiftDriver serves programs that end while they are attached.
type swiftDriver struct{ Driver }

func (swiftDriver) Attach(_ seccomp.App, _ seccomp.Handover, gone func()) error {
	gone()
	return nil
}

// published are the applications that are in the service table.
type published map[ax.AppID]bool

func (p published) PutApp(a ax.App)     { p[a.ID] = true }
func (p published) DropApp(id ax.AppID) { delete(p, id) }
func (p published) SetDraining(bool)    {}
func (p published) Claim(context.Context, string, netip.Addr) (netip.Addr, error) {
	return netip.Addr{}, nil
}

// newGate is one without rules.
func newGate(t *testing.T) *admission.Gate {
	t.Helper()
	g, err := admission.NewGate(nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestSwiftProgram: a program that ends at once does not stay in the service table.
func TestSwiftProgram(t *testing.T) {
	log, apps := slog.New(slog.DiscardHandler), published{}
	m, err := NewManager(Config{Node: ax.Node{Name: "n1", Addr: netip.MustParseAddr("10.0.0.1")}, StateDir: t.TempDir()},
		Deps{Log: log, Driver: swiftDriver{}, Publisher: apps, Table: socktab.New(nil, log), Gate: newGate(t)})
	if err != nil {
		t.Fatal(err)
	}
	p := peer{pid: os.Getpid(), privileged: true}
	w, err := m.Hello(t.Context(), p, wire.Hello{Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if name, labels := m.Identity(ax.AppID(w.AppID)); name == "" || labels["zone"] != "default" {
		t.Errorf("identity: %q %v", name, labels)
	}
	if err := m.Attach(t.Context(), p, wire.Attach{AppID: w.AppID, Token: w.Token}, seccomp.Handover{}); err != nil {
		t.Fatal(err)
	}
	if len(apps) != 0 || len(m.List()) != 0 {
		t.Errorf("it stays: published %v, listed %v", apps, m.List())
	}
}

// refusing is a registry that does not grant addresses, for a reason.
type refusing struct {
	published
	why error
}

func (r refusing) Claim(context.Context, string, netip.Addr) (netip.Addr, error) {
	return netip.Addr{}, r.why
}

// TestClaimRefused: an address that the registry refuses is an error that says why; with no registry in reach a program starts
// all the same if it says which address it wants.
func TestClaimRefused(t *testing.T) {
	refused, away := errors.New("claim address 10.0.0.1: it is a node's"), fmt.Errorf("claim: %w (nobody there)", publish.ErrUnavailable)
	for _, c := range []struct {
		hello wire.Hello
		why   error
		code  string
	}{
		{wire.Hello{IP: "1.1.1.1"}, refused, wire.CodeInvalid},
		{wire.Hello{Name: "web"}, refused, wire.CodeInvalid},
		{wire.Hello{Name: "web"}, away, wire.CodeUnavailable},
		{wire.Hello{IP: "1.1.1.1"}, away, ""},
	} {
		log := slog.New(slog.DiscardHandler)
		m, err := NewManager(Config{Node: ax.Node{Name: "n1", Addr: netip.MustParseAddr("10.0.0.1")}, StateDir: t.TempDir(), DNS: true},
			Deps{Log: log, Driver: swiftDriver{}, Publisher: refusing{published{}, c.why}, Table: socktab.New(nil, log), Gate: newGate(t)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Hello(t.Context(), peer{pid: os.Getpid(), privileged: true}, c.hello)
		var answer *wire.Error
		switch errors.As(err, &answer); {
		case c.code == "" && err == nil:
		case answer == nil || answer.Code != c.code || !strings.Contains(answer.Message, c.why.Error()):
			t.Errorf("%+v: %v, want %q with %v", c.hello, err, c.code, c.why)
		}
	}
}
