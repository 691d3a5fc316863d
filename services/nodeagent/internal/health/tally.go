package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"appswitch.io/internal/ax"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tally makes states of results.
type tally struct {
	check ax.HealthCheck
	now   ax.Health
	runs  int // results in a row that speak against the present state
}

// note takes the result of a check and returns the state, and whether it is another one. The first result decides alone:
// there is nothing to hold on to.
func (t *tally) note(err error) (ax.Health, bool) {
	next := ax.Health{State: ax.Healthy}
	needed := t.check.Successes
	if err != nil {
		next = ax.Health{State: ax.Unhealthy, Reason: reason(err)}
		needed = t.check.Failures
	}
	if next.State == t.now.State {
		t.runs = 0
		return t.now, false
	}
	if t.runs++; t.runs < needed && t.now.State != ax.Unchecked {
		return t.now, false
	}
	t.now, t.runs = next, 0
	return t.now, true
}

// refusal is an answer that is not the one wanted.
type refusal string

func (r refusal) Error() string { return string(r) }

// reason says in a few words why a check has failed.
func reason(err error) string {
	var answer refusal
	var timeout net.Error
	text := err.Error()
	switch st, isStatus := status.FromError(err); {
	case errors.As(err, &answer):
		text = string(answer)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(), isStatus && st.Code() == codes.DeadlineExceeded:
		text = "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		text = "connection reset"
	case isStatus:
		text = fmt.Sprintf("gRPC %s: %s", st.Code(), st.Message())
	}
	return text[:min(len(text), ax.MaxHealthReason)]
}
