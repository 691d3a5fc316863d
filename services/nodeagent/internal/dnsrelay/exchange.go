package dnsrelay

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"
)

// How long, and how often, the resolver is asked.
const (
	Patience    = 4500 * time.Millisecond // then the client is told: glibc gives up, or asks another, after 5 s
	StaleAfter  = 300 * time.Millisecond  // of silence; then an answer of the past is better than none
	firstResend = 100 * time.Millisecond  // doubled each time, up to
	maxResend   = 500 * time.Millisecond  // because a silent resolver may be waiting for another
)

// upstream is a way to the resolver for one query: a port that nobody can guess, and no replies to others.
type upstream interface {
	send(query []byte) error
	// receive hands what arrives to accept until that returns true, and then returns nil. When the time has come it
	// returns os.ErrDeadlineExceeded; any other error says that nothing will arrive.
	receive(until time.Time, accept func([]byte) bool) error
	close()
}

// exchange is one query under way.
type exchange struct {
	relay *Relay
	query *query
	reply func([]byte) // to the client

	start   time.Time
	replied bool // with a stale answer: only the cache still wants a fresh one

	to      netip.AddrPort // where up leads
	up      upstream       // nil: the resolver can't be reached at present
	release func() bool    // of what closes up when the context ends
}

// run asks until there is an answer, Patience is at an end or ctx ends.
func (e *exchange) run(ctx context.Context) {
	defer e.hangUp()
	e.start = time.Now()
	end, staleAt := e.start.Add(Patience), e.start.Add(StaleAfter)
	send, gap := e.start, firstResend
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(end) {
			if !e.replied {
				e.finish(failed, e.query.servfail())
			}
			return
		}
		if !e.replied && !now.Before(staleAt) && e.replyStale() {
			send = end // who has an answer need not press the resolver
		}
		if !now.Before(send) {
			e.ask(ctx)
			send, gap = now.Add(gap), min(2*gap, maxResend)
		}
		wake := earlier(send, end)
		if now.Before(staleAt) {
			wake = earlier(wake, staleAt)
		}
		if e.listen(ctx, wake) {
			return
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// ask sends the query to where the resolver is now.
func (e *exchange) ask(ctx context.Context) {
	to := e.relay.resolver()
	if e.up != nil && e.to != to {
		e.hangUp()
	}
	if e.up == nil {
		if !to.IsValid() {
			return
		}
		up, err := e.relay.dial(to)
		if err != nil {
			e.relay.log.Debug("resolver can't be asked", "address", to.String(), "error", err)
			return
		}
		e.up, e.to = up, to
		e.release = context.AfterFunc(ctx, up.close)
	}
	if err := e.up.send(e.query.data); err != nil {
		e.hangUp()
	}
}

func (e *exchange) hangUp() {
	if e.up != nil {
		e.release()
		e.up.close()
		e.up = nil
	}
}

// listen waits for an answer until the given time and reports whether there is nothing left to do.
func (e *exchange) listen(ctx context.Context, until time.Time) bool {
	if e.up != nil {
		err := e.up.receive(until, e.accept)
		if err == nil {
			return true
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		e.hangUp() // refused: the resolver is not there. The next attempt gets a socket without that on its mind.
	}
	if e.replied {
		return true // with no one there, no fresh answer will come
	}
	sleep(ctx, time.Until(until))
	return false
}

// accept takes a packet and reports whether it was the answer.
func (e *exchange) accept(b []byte) bool {
	if !e.query.answeredBy(b) {
		return false // forged or garbage; the right one may still come
	}
	if e.replied {
		e.relay.cache.learn(e.query, b)
		return true
	}
	if rcode(b) == rcodeServFail && e.replyStale() {
		return true // the resolver says that it doesn't know, which is no more than silence (RFC 8767, section 5)
	}
	e.relay.cache.learn(e.query, b)
	e.finish(answered, b)
	return true
}

// replyStale answers with what the resolver said earlier, if it did.
func (e *exchange) replyStale() bool {
	b := e.relay.cache.stale(e.query)
	if b == nil {
		return false
	}
	e.replied = true
	e.finish(stale, b)
	return true
}

// finish replies to the client. It counts first, so that who has the reply finds it counted.
func (e *exchange) finish(result string, b []byte) {
	e.relay.metrics.count(result)
	e.relay.metrics.seconds.Observe(time.Since(e.start).Seconds())
	e.reply(b)
}
