package connectivity

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Result is how one check ended.
type Result struct {
	Check   string        `json:"check"`
	OK      bool          `json:"ok"`
	Detail  string        `json:"detail,omitempty"` // what was not as it should be
	Took    time.Duration `json:"-"`
	Seconds float64       `json:"seconds"`
}

// Endpoint is a server as the service table has it.
type Endpoint struct{ Name, Service, Host string }

// Config is what the test works with.
type Config struct {
	Self   string // file name of this binary
	RunDir string // of the agent's socket; empty: where `ax run` looks
	// Endpoints returns the service table.
	Endpoints func(context.Context) ([]Endpoint, error)
	// Explain returns the verdict on a TCP connect of a client with labels: allow, deny or passthrough.
	Explain func(ctx context.Context, labels, to string) (string, error)
	// Report is called with each result as soon as it is there.
	Report func(Result)
}

// tableWait bounds how long the service table may take to show that a server came or went; a test that waits so long
// fails.
const tableWait = 15 * time.Second

// pauseBetween is the pause between looks at something that is awaited.
const pauseBetween = 50 * time.Millisecond

// Run makes all checks and tells whether all were as they should be. An error means that they could not be made.
func Run(ctx context.Context, cfg Config) (ok bool, err error) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	r := &run{Config: cfg, name: "ax-test-" + hex.EncodeToString(id[:]), ok: true, launcher: launcher{self: cfg.Self}}
	if cfg.RunDir != "" {
		r.launcher.runDir = []string{"--run-dir", cfg.RunDir}
	}
	defer func() { r.stop() }()
	if err := r.start(ctx); err != nil {
		return false, err
	}
	for _, c := range checks {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		r.check(c.name, func() error { return r.try(ctx, c) })
	}
	r.check("explain agrees", func() error { return r.explain(ctx) })
	r.check("no way in from outside", func() error { return r.outside(ctx) })
	r.stop()
	r.check("servers that end leave the table", func() error { return r.gone(ctx) })
	r.check(refusedAfter.name, func() error { return r.try(ctx, refusedAfter) })
	return r.ok, ctx.Err()
}

// run is one test.
type run struct {
	Config
	launcher launcher
	name     string // of the servers
	addr     string // their address
	servers  []*server
	ok       bool
}

// check makes one check and reports it.
func (r *run) check(name string, f func() error) {
	start := time.Now()
	err := f()
	result := Result{Check: name, OK: err == nil, Took: time.Since(start)}
	result.Seconds = result.Took.Seconds()
	if err != nil {
		result.Detail, r.ok = err.Error(), false
	}
	r.Report(result)
}

// start starts the servers and finds out their address.
func (r *run) start(ctx context.Context) error {
	for _, s := range []struct{ labels, tag string }{{labelsOne, "1"}, {labelsBoth, "2"}} {
		srv, err := r.launcher.serve(ctx, r.name, s.labels, s.tag)
		if err != nil {
			return err
		}
		r.servers = append(r.servers, srv)
	}
	return r.await(ctx, func(all []Endpoint) error {
		if len(all) != len(r.servers) {
			return fmt.Errorf("%d of %d servers are in the service table after %s", len(all), len(r.servers), tableWait)
		}
		r.addr = host(all[0].Service)
		return nil
	})
}

// stop ends the servers; they are gone when it returns.
func (r *run) stop() {
	for _, s := range r.servers {
		s.stop()
	}
	r.servers = nil
}

// await looks at the endpoints of the servers until they are as f wants them.
func (r *run) await(ctx context.Context, f func([]Endpoint) error) error {
	deadline := time.Now().Add(tableWait)
	for {
		all, err := r.Endpoints(ctx)
		if err != nil {
			return err
		}
		own := slices.DeleteFunc(all, func(e Endpoint) bool { return e.Name != r.name })
		if err = f(own); err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauseBetween):
		}
	}
}

func (r *run) gone(ctx context.Context) error {
	return r.await(ctx, func(all []Endpoint) error {
		if len(all) > 0 {
			return fmt.Errorf("%d servers are in the service table %s after their end", len(all), tableWait)
		}
		return nil
	})
}

// try makes a check's request, as often as it says.
func (r *run) try(ctx context.Context, c check) error {
	to := strings.NewReplacer("ADDR", r.addr, "NAME", r.name).Replace(c.to)
	missing := strings.Fields(c.tags) // servers that have not answered yet
	deadline := time.Now().Add(tableWait)
	for n := 1; ; n++ {
		o, err := r.launcher.call(ctx, c, to)
		if err != nil {
			return err // the client could not be run
		}
		if err = c.judge(o, r.addr); err != nil && (!c.awaited || time.Now().After(deadline)) {
			return err
		}
		if err != nil {
			continue
		}
		missing = slices.DeleteFunc(missing, func(tag string) bool { return tag == o.Tag })
		switch {
		case c.repeat == 0 || len(missing) == 0:
			return nil
		case n >= c.repeat:
			return fmt.Errorf("server %s answered none of %d connects", strings.Join(missing, " and "), n)
		}
	}
}

// explain compares what is explained with what the checks before have seen.
func (r *run) explain(ctx context.Context) error {
	for _, want := range []struct{ labels, to, verdict string }{
		{labelsOne, at(r.addr, servedPort), "allow"}, {labelsAlien, at(r.addr, servedPort), "deny"},
		{labelsOne, at(r.addr, emptyPort), "deny"}, {labelsTwo, at(r.name, servedPort), "allow"},
	} {
		got, err := r.Explain(ctx, want.labels, want.to)
		if err != nil {
			return err
		}
		if got != want.verdict {
			return fmt.Errorf("%s to %s: explained as %s, but it is %s", want.labels, want.to, got, want.verdict)
		}
	}
	return nil
}

// outside connects to the real address of a server without AppSwitch, where no byte may come back.
func (r *run) outside(ctx context.Context) error {
	all, err := r.Endpoints(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(e Endpoint) bool {
		return e.Name == r.name && e.Service == net.JoinHostPort(r.addr, fmt.Sprint(servedPort))
	})
	if i < 0 {
		return errors.New("the server is not in the service table")
	}
	if o := Call(ctx, all[i].Host, 1, callWait); o.Error == "" {
		return fmt.Errorf("server %s answered at %s to a program that is not under AppSwitch", o.Tag, all[i].Host)
	}
	return nil
}
