package seccomp

import (
	"net/netip"
	"syscall"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/flows"
)

// policyLogEvery is how often an application's policy decisions are told of: in the log at all, and as flows for datagrams
// to one destination. What comes in between is counted.
const policyLogEvery = time.Second

// policyLog bounds what an application can make the agent tell. Its task's thread alone uses it.
type policyLog struct {
	at       time.Time // of the last line in the log
	untold   int       // decisions since then
	datagram struct {  // the last one that became a flow
		dest   netip.AddrPort
		policy string
		at     time.Time
	}
}

// logFlow records a connect that was decided, and logs it if a policy refused it, or would have.
func (t *task) logFlow(f flows.Flow) {
	f.Time, f.App = now(), t.app.ID
	t.d.deps.Flows.Add(f)
	refusal := f.Verdict == ax.Deny && f.Policy != ""
	if !refusal && f.Audit == "" {
		return
	}
	if f.Time.Sub(t.policies.at) < policyLogEvery {
		t.policies.untold++
		return
	}
	log := t.d.deps.Log.With("app", f.App, "protocol", f.Proto.String(), "destination", f.Dest, "untold", t.policies.untold)
	t.policies.at, t.policies.untold = f.Time, 0
	if refusal {
		log.Info("connection refused by a policy", "policy", f.Policy)
		return
	}
	log.Info("connection would be refused by a policy in audit mode", "policy", f.Audit)
}

// logDatagram records where a UDP socket is connected to, or sends to, if a policy refuses that or would: of a stream of
// datagrams one in a while.
func (t *task) logDatagram(dest netip.AddrPort, to *target) {
	policy := to.audit
	if to.verdict == ax.Deny && to.policy != "" {
		policy = to.policy
	}
	if policy == "" {
		return
	}
	last, at := &t.policies.datagram, now()
	if last.dest == dest && last.policy == policy && at.Sub(last.at) < policyLogEvery {
		return
	}
	last.dest, last.policy, last.at = dest, policy, at
	f := flows.Flow{Proto: ax.UDP, Dest: dest, Verdict: to.verdict, Reason: to.reason, Policy: to.policy, Audit: to.audit, Errno: to.errno}
	if to.errno == syscall.Errno(0) {
		f.Host = to.addr
	}
	t.logFlow(f)
}
