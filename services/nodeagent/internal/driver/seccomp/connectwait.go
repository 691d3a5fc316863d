package seccomp

import (
	"syscall"

	"appswitch.io/services/nodeagent/internal/sys"
	"golang.org/x/sys/unix"
)

// wait parks the connect until the kernel knows how it ended.
func (op *connect) wait() {
	if !op.watched {
		if err := op.t.watch(op.fd, unix.EPOLLOUT|unix.EPOLLRDHUP, op.ready); err != nil {
			op.finish(syscall.ENOMEM)
			return
		}
		op.watched = true
	}
	if op.parked == nil {
		op.parked = op.t.park(op.call, op.deadline, op.timedOut, op.release)
		op.parked.timed = op.blocking && !op.deadline.IsZero()
	}
}

// ready goes on when the kernel knows how the connect ended, or that it was ended: by shutdown(2), or by another connect(2)
// with AF_UNSPEC. After both (tcp_disconnect) the socket is as fresh and neither direction is shut down; connecting again
// would begin anew. SO_ERROR has the error, and reading it takes it away, as the waiting call does natively.
func (op *connect) ready(events uint32) {
	if events&unix.EPOLLHUP != 0 && events&unix.EPOLLRDHUP == 0 {
		if errno, _ := sys.GetsockoptInt(op.fd, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			op.finish(syscall.Errno(errno))
			return
		}
	}
	op.attempt()
}

// timedOut is the end of SO_SNDTIMEO or of the refusal window: natively EINPROGRESS in both cases, and EALREADY for whoever
// waited for a connect that had been begun before.
func (op *connect) timedOut() {
	if op.resumed {
		op.finish(syscall.EALREADY)
		return
	}
	op.finish(syscall.EINPROGRESS)
}

// waitForSnapshot parks a connect that comes before the first routes did.
func (op *connect) waitForSnapshot() {
	t := op.t
	t.snapshots = append(t.snapshots, op)
	if op.parked == nil {
		op.parked = t.park(op.call, now().Add(t.d.cfg.AgentTimeout), func() { op.finish(syscall.ENETDOWN) }, op.release)
	}
}

// retrySnapshotWaiters goes on with the connects that waited for the first snapshot.
func (t *task) retrySnapshotWaiters() {
	waiters := t.snapshots
	t.snapshots = nil
	for _, op := range waiters {
		if op.parked.over {
			continue
		}
		if !op.blocking {
			op.deadline = now().Add(refusalWindow)
		}
		op.t.repark(op.parked, op.deadline, op.timedOut)
		op.decide()
	}
}
