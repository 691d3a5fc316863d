package seccomp

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"appswitch.io/services/nodeagent/internal/procfs"
	"appswitch.io/services/nodeagent/internal/sys"
)

// What a launcher or holder hands over comes from a process of the application's user, who may be hostile. The kernel
// says which ids are calls of the application. It doesn't say who made them: the journal does, and who can write to it
// could name a thread of somebody else, with whose descriptors and memory the agent would then work. So a call is
// taken up only if the named thread sleeps in just that call, waiting for a supervisor.

const listenerName = "anon_inode:seccomp notify"

const (
	// A thread that sleeps in a call may be on its way to a processor for a moment, when somebody has woken it in vain. All
	// orphans of an application together are given orphanPatience for that.
	orphanPatience = 2 * time.Second
	orphanPause    = time.Millisecond
)

// checkListener refuses what is no seccomp listener: one could wait on it for ever, or never.
func checkListener(fd int) error {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return fmt.Errorf("identify listener: %w", err)
	}
	if name != listenerName {
		return errors.New("listener is not one of seccomp")
	}
	return nil
}

// replayAll carries out again what an earlier agent has received and not answered.
func (t *task) replayAll() {
	deadline := now().Add(orphanPatience)
	for _, slot := range t.inflight.orphans() {
		n := *t.inflight.notify(slot) // the one copy
		if !sys.Valid(t.listener, n.ID) {
			t.inflight.release(slot) // the caller is gone
		} else if why := t.doubt(&n, deadline); why != "" {
			t.d.deps.Metrics.OrphansRefused.Inc()
			t.d.deps.Log.Warn("call in the journal is refused", "app", t.app.ID, "tid", n.TID, "nr", n.NR, "reason", why)
			_ = sys.Reply(t.listener, n.ID, 0, syscall.ENETDOWN) // some thread of the application waits, whichever that is
			t.inflight.release(slot)
		} else {
			t.begin(slot, &n, true)
		}
	}
}

// doubt says why a call that stands in the journal is none; nothing if it is one, or is over meanwhile.
func (t *task) doubt(n *sys.Notify, deadline time.Time) string {
	if n.TID == 0 {
		return "" // its thread can't be seen: it is refused in any case
	}
	for {
		s, err := procfs.SyscallOf(int(n.TID))
		switch {
		case err == nil:
			return contradiction(n, s)
		case !errors.Is(err, procfs.ErrRunning):
			return "" // a thread that is gone, or not ours to look into: neither is it to work with
		case !sys.Valid(t.listener, n.ID):
			return ""
		case now().After(deadline):
			return "its thread is in no call"
		}
		time.Sleep(orphanPause)
	}
}

// contradiction compares what the journal says with what the kernel says of the thread.
func contradiction(n *sys.Notify, s procfs.Syscall) string {
	switch {
	case s.NR != n.NR || s.Args != n.Args:
		return "its thread is in another call"
	case !s.Notified:
		return "its thread does not wait for an agent"
	}
	return ""
}
