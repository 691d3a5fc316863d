package seccomp

import (
	"container/heap"
	"time"
)

// parked is a call that waits for something other than this thread.
type parked struct {
	call     *call
	deadline time.Time // zero: none
	expired  func()    // the deadline has passed: ends the call or parks it again
	abandon  func()    // releases what the wait holds, without answering
	over     bool
	timed    bool // the deadline is the application's: SO_RCVTIMEO or SO_SNDTIMEO
	index    int  // in deadlines
}

// park makes a call wait. Abandon must release whatever was set up for the wait; it runs exactly once, when the wait
// ends in any way (see unpark and cancel).
func (t *task) park(c *call, deadline time.Time, expired, abandon func()) *parked {
	t.observe(c)
	p := &parked{call: c, deadline: deadline, expired: expired, abandon: abandon, index: -1}
	t.parked[c.id] = p
	t.byThread[c.tid] = p
	if !deadline.IsZero() {
		heap.Push(&t.deadlines, p)
	}
	return p
}

// unpark ends a wait; the caller goes on with the call.
func (t *task) unpark(p *parked) {
	if p.over {
		return
	}
	p.over = true
	delete(t.parked, p.call.id)
	if t.byThread[p.call.tid] == p {
		delete(t.byThread, p.call.tid)
	}
	if p.index >= 0 {
		heap.Remove(&t.deadlines, p.index)
	}
	p.abandon()
}

// cancel ends a wait whose caller is gone.
func (t *task) cancel(p *parked) {
	if p.over {
		return
	}
	t.unpark(p)
	t.inflight.release(p.call.slot)
}

// interrupted reports whether c is the call that waited as p, which the kernel has started again after a signal (SA_RESTART).
// signal(7): a call with a time limit is not; natively it gives EINTR, lest signals prolong it for ever.
func (p *parked) interrupted(c *call) bool {
	return p.timed && !p.over && p.call.nr == c.nr && p.call.args == c.args
}

// deadlines is a heap of parked calls, the earliest first.
type deadlines []*parked

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *deadlines) Push(x any) {
	p := x.(*parked)
	p.index = len(*d)
	*d = append(*d, p)
}

func (d *deadlines) Pop() any {
	old := *d
	p := old[len(old)-1]
	*d = old[:len(old)-1]
	p.index = -1
	return p
}

// repark gives a wait another deadline.
func (t *task) repark(p *parked, deadline time.Time, expired func()) {
	if p.index >= 0 {
		heap.Remove(&t.deadlines, p.index)
	}
	p.deadline, p.expired = deadline, expired
	if !deadline.IsZero() {
		heap.Push(&t.deadlines, p)
	}
}
