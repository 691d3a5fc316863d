package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// StopTimeout is the time in which everything has to stop.
const StopTimeout = 5 * time.Second

// stageTimeout is how long the stop of one stage holds up the next. It is less than StopTimeout by far, so that every
// stage gets its turn.
const stageTimeout = 1500 * time.Millisecond

// runner is something that the daemon runs. run returns when ctx ends, and not before unless it failed.
type runner struct {
	name string
	run  func(ctx context.Context) error
}

// runStages runs everything at once until ctx ends or one of them fails. Then it stops stage by stage, the first
// first: what uses others stops before them, so that it can still say goodbye. It returns the first failure; after
// StopTimeout it doesn't wait any longer and names those that still run.
func runStages(ctx context.Context, log *slog.Logger, stages [][]runner) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var (
		g       errgroup.Group
		running sync.Map // names
	)
	stops := make([]func(), len(stages))
	for i, stage := range stages {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		var members sync.WaitGroup
		for _, r := range stage {
			running.Store(r.name, true)
			members.Add(1)
			g.Go(func() error {
				defer members.Done()
				defer running.Delete(r.name)
				err := r.outcome(stageCtx)
				if err != nil {
					fail(err)
				}
				return err
			})
		}
		stopped := make(chan struct{})
		g.Go(func() error {
			members.Wait()
			close(stopped)
			return nil
		})
		stops[i] = func() {
			cancel()
			select {
			case <-stopped:
			case <-time.After(stageTimeout):
			}
		}
	}
	g.Go(func() error {
		<-ctx.Done()
		log.Info("stopping", "reason", context.Cause(ctx))
		for _, stop := range stops {
			stop()
		}
		return nil
	})
	return wait(ctx, &g, &running)
}

// outcome runs r and tells a failure from an end that was asked for.
func (r runner) outcome(ctx context.Context) error {
	err := r.run(ctx)
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		return nil
	case err == nil:
		return fmt.Errorf("%s: ended by itself", r.name)
	}
	return fmt.Errorf("%s: %w", r.name, err)
}

func wait(ctx context.Context, g *errgroup.Group, running *sync.Map) error {
	done := make(chan error, 1)
	go func() { done <- g.Wait() }() // ends with the group
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(StopTimeout):
	}
	var names []string
	running.Range(func(name, _ any) bool {
		names = append(names, name.(string)) //nolint:forcetypeassert // only names are stored
		return true
	})
	late := fmt.Errorf("%s did not stop within %s", strings.Join(names, ", "), StopTimeout)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.As(cause, new(*SignalError)) {
		return errors.Join(cause, late)
	}
	return late
}
