package seccomp

import (
	"syscall"

	"appswitch.io/internal/ax"
)

// failed notes that an endpoint could not be reached.
func (op *connect) failed(errno syscall.Errno) {
	d, e := op.t.d, op.target.endpoint
	if until, ejected := d.deps.Outliers.Failed(e.Proto, e.Host, now()); ejected {
		d.deps.Log.Info("endpoint is left out: connects to it fail", "endpoint", e.ID, "host", e.Host, "error", errno, "until", until)
	}
}

// succeeded notes that an endpoint was reached. Connecting a UDP socket reaches nobody.
func (op *connect) succeeded() {
	if e := op.target.endpoint; e != nil && op.s.Proto == ax.TCP {
		op.t.d.deps.Outliers.Succeeded(e.Proto, e.Host)
	}
}
