package attach

import (
	"context"
	"fmt"
	"os"
	"strings"

	"appswitch.io/services/nodeagent/internal/procfs"
	"appswitch.io/services/nodeagent/internal/socktab"
	"appswitch.io/services/nodeagent/launch/restrict"
	"appswitch.io/services/nodeagent/launch/wire"
)

func scopeOf(pid int) (socktab.ScopeID, error) {
	dev, ino, err := procfs.NetnsInode(pid)
	if err != nil {
		return socktab.ScopeID{}, fmt.Errorf("find network namespace: %w", err)
	}
	return socktab.ScopeID{Dev: dev, Ino: ino}, nil
}

// place finds out where a program lives: its network namespace, and the name servers it knows. It shares the host's
// loopback only if who speaks for it is in the host's network namespace, too.
func (m *Manager) place(ctx context.Context, e *entry, p peer, a wire.Attach) error {
	speaker, err := scopeOf(p.pid)
	if err != nil {
		return err
	}
	pid := program(p, a)
	scope, err := scopeOf(pid)
	if err != nil {
		return err
	}
	e.App.PID, e.App.Scope, e.App.HostScope = pid, scope, scope == m.own && speaker == m.own
	if e.App.DNS {
		if e.App.Nameservers, err = procfs.Nameservers(ctx, pid); err != nil {
			m.deps.Log.Debug("name servers of application are unknown", "app", e.App.ID, "error", err)
		}
	}
	return nil
}

// program finds the process that an attachment is about. A launcher speaks for itself, or for the child that becomes the
// program; a holder, which is no relative of it, for one of its own user. Whatever else is claimed, the sender counts.
func program(p peer, a wire.Attach) int {
	pid, err := procfs.Relative(p.pid, a.PID)
	if err != nil || pid == p.pid {
		return p.pid
	}
	if parent, err := procfs.Parent(pid); err == nil && parent == p.pid {
		return pid
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/status", pid)); a.Holder && err == nil && p.owns(info) {
		return pid
	}
	return p.pid
}

// readable refuses a program whose memory this agent may not read. Without root, a program gets its network namespace from
// a user namespace of its own.
func readable(newNetns bool) error {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return nil //nolint:nilerr // no Yama
	}
	if f := restrict.Ptrace(strings.TrimSpace(string(scope)), os.Geteuid() == 0, newNetns); f.Severity != restrict.Fine {
		return &wire.Error{Code: wire.CodeDenied, Message: f.Sentence()}
	}
	return nil
}
