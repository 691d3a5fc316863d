package seccomp

import (
	"net/netip"
	"syscall"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
)

// failed notes that an endpoint could not be reached.
func (op *connect) failed(errno syscall.Errno) {
	op.t.d.noteFailure(op.target.endpoint.Host, errno)
}

func (d *Driver) noteFailure(host netip.AddrPort, errno syscall.Errno) {
	if until, ejected := d.deps.Outliers.Failed(ax.TCP, host, now()); ejected {
		d.deps.Log.Info("endpoint is left out: connects to it fail", "host", host, "error", errno, "until", until)
	}
}

// Unanswered notes a connect whose answer never came, when its socket is closed: one that does not block was answered
// with EINPROGRESS, and the application has given up by itself. It is called before SocketClosed, managed or not.
func (d *Driver) Unanswered(cookie uint64) {
	s, ok := d.deps.Table.Get(cookie)
	if ok && s.Proto == ax.TCP && s.State == socktab.Connecting && s.HostPeer.IsValid() {
		d.noteFailure(s.HostPeer, syscall.ETIMEDOUT)
	}
}

// succeeded notes that an endpoint was reached. Connecting a UDP socket reaches nobody.
func (op *connect) succeeded() {
	if e := op.target.endpoint; e != nil && op.s.Proto == ax.TCP {
		op.t.d.deps.Outliers.Succeeded(e.Proto, e.Host)
	}
}
