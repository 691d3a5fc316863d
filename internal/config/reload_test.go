package config

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spf13/pflag"
)

// reloading is a program that can be reloaded: --cluster and --ports are live.
type reloading struct {
	*Reloader
	log     bytes.Buffer
	path    string
	applied []string
	fail    error // of putting --cluster into effect
}

func newReloading(t *testing.T, args ...string) *reloading {
	t.Helper()
	r := &reloading{path: file(t, "c.yaml", "cluster: c1\n")}
	running := newOptions()
	if err := running.fs.Parse(append(args, "--config", r.path)); err != nil {
		t.Fatal(err)
	}
	replay := CommandLine(running.fs)
	if _, err := Load(running.fs, Options{}); err != nil {
		t.Fatal(err)
	}
	var err error
	r.Reloader, err = NewReloader(ReloaderConfig{
		Log: slog.New(slog.NewTextHandler(&r.log, nil)), Metrics: prometheus.NewRegistry(), Running: running.fs,
		Load: func() (*pflag.FlagSet, error) {
			o := newOptions()
			if err := replay(o.fs); err != nil {
				return nil, err
			}
			_, err := Load(o.fs, Options{})
			return o.fs, err
		},
		Live: Live{
			"cluster": func(fs *pflag.FlagSet) error {
				if r.fail == nil {
					r.applied = append(r.applied, "cluster="+fs.Lookup("cluster").Value.String())
				}
				return r.fail
			},
			"ports": func(fs *pflag.FlagSet) error {
				ports, err := fs.GetStringSlice("ports")
				r.applied = append(r.applied, "ports="+strings.Join(ports, ","))
				return err
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reloading) with(t *testing.T, content string) []string {
	t.Helper()
	if err := os.WriteFile(r.path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	r.applied = nil
	r.log.Reset()
	r.Reload()
	return r.applied
}

func TestReload(t *testing.T) {
	r := newReloading(t, "--ports=7,8")
	if got := r.with(t, "cluster: c1\n"); got != nil {
		t.Errorf("applied %v although nothing changed", got)
	}
	if got := r.with(t, "cluster: c2\nrest-port: 7000\n"); !slices.Equal(got, []string{"cluster=c2"}) {
		t.Errorf("applied %v", got)
	}
	for _, want := range []string{"option=cluster from=c1 to=c2", `"option changed, but only a restart puts it into effect" option=rest-port running=6664 configured=7000`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no %q in\n%s", want, r.log.String())
		}
	}
	if n := testutil.ToFloat64(r.waiting); n != 1 {
		t.Errorf("%v options wait for a restart", n)
	}
	// The command line goes on winning, and a key that is gone has its default again.
	if got := r.with(t, "ports: [1]\n"); !slices.Equal(got, []string{"cluster=appswitch"}) {
		t.Errorf("applied %v", got)
	}
}

func TestAReloadWithMistakesChangesNothing(t *testing.T) {
	r := newReloading(t)
	if got := r.with(t, "cluster: c2\nnodename: x\n"); got != nil {
		t.Errorf("applied %v", got)
	}
	if !strings.Contains(r.log.String(), "level=ERROR") || !strings.Contains(r.log.String(), "did you mean node-name?") {
		t.Errorf("log: %s", r.log.String())
	}
	if n := testutil.ToFloat64(r.reloads.WithLabelValues("rejected")); n != 1 {
		t.Errorf("%v counted", n)
	}
	// What can't be put into effect is tried again the next time.
	r.fail = errors.New("no")
	r.with(t, "cluster: c2\n")
	r.fail = nil
	if got := r.with(t, "cluster: c2\n"); !slices.Equal(got, []string{"cluster=c2"}) {
		t.Errorf("applied %v", got)
	}
}

func TestRunReloadsAtSignals(t *testing.T) {
	r := newReloading(t)
	if err := os.WriteFile(r.path, []byte("cluster: c2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal) // unbuffered: the second is taken when the first has been dealt with
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx, signals) }()
	signals <- syscall.SIGHUP
	signals <- syscall.SIGHUP
	cancel()
	if err := <-done; err != nil || !slices.Equal(r.applied, []string{"cluster=c2"}) {
		t.Errorf("applied %v, %v", r.applied, err)
	}
}
