package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ends records in which order runners end.
type ends struct {
	mu    sync.Mutex // guards names
	names []string
}

func (e *ends) add(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.names = append(e.names, name)
}

// until returns a runner that stops, after some time, when it is told to.
func (e *ends) until(name string, takes time.Duration) runner {
	return runner{name, func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(takes)
		e.add(name)
		return ctx.Err()
	}}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)) }

func TestStagesStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e ends
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Minute, cancel)
		start := time.Now()
		err := runStages(ctx, quiet(), [][]runner{
			{e.until("agent", 300*time.Millisecond), e.until("gateway", 100*time.Millisecond)},
			{e.until("router", 0)},
			{e.until("registry", 200*time.Millisecond)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"gateway", "agent", "router", "registry"}; !slices.Equal(e.names, want) {
			t.Errorf("stopped %v, want %v", e.names, want)
		}
		if took := time.Since(start) - time.Minute; took != 500*time.Millisecond {
			t.Errorf("stopping took %s", took)
		}
	})
}

func TestStagesFailTogether(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"error":          {func(context.Context) error { return boom }, "router: boom"},
		"cancels":        {func(context.Context) error { return context.Canceled }, "router: context canceled"},
		"ends by itself": {func(context.Context) error { return nil }, "router: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var e ends
				err := runStages(context.Background(), quiet(), [][]runner{
					{e.until("agent", 0)}, {{"router", tc.run}}, {e.until("registry", 0)},
				})
				if err == nil || err.Error() != tc.want {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				if want := []string{"agent", "registry"}; !slices.Equal(e.names, want) {
					t.Errorf("stopped %v, want %v", e.names, want)
				}
			})
		})
	}
}

func TestStagesFailureWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := runStages(ctx, quiet(), [][]runner{{{"registry", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("close etcd: disk full")
		}}}})
		if err == nil || err.Error() != "registry: close etcd: disk full" {
			t.Errorf("got %v", err)
		}
	})
}

func TestStagesDoNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e ends
		release := make(chan struct{})
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Minute, func() { cancel(&SignalError{"terminated"}) })
		start := time.Now()
		stuck := runner{"agent", func(context.Context) error { <-release; return nil }}
		err := runStages(ctx, quiet(), [][]runner{{stuck}, {e.until("registry", 0)}})
		if err == nil || err.Error() != "agent did not stop within 5s" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start) - time.Minute; took != StopTimeout {
			t.Errorf("stopping took %s", took)
		}
		// What stands behind the one that is stuck got its turn all the same.
		if !slices.Equal(e.names, []string{"registry"}) {
			t.Errorf("stopped %v", e.names)
		}
		close(release)
	})
}

func TestStagesNameTheCauseOfALateStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		err := runStages(context.Background(), quiet(), [][]runner{{
			{"agent", func(context.Context) error { <-release; return nil }},
			{"router", func(context.Context) error { return errors.New("boom") }},
		}})
		if err == nil || !strings.Contains(err.Error(), "router: boom") || !strings.Contains(err.Error(), "agent did not stop") {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}
