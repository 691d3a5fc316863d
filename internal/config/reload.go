package config

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
)

// Live are the options that can change while a program runs: by flag, what puts the value into effect that a newly
// loaded set of flags has. An error leaves the option as it was.
type Live map[string]func(*pflag.FlagSet) error

// CommandLine keeps what the command line gave, so that it holds again after a reload. It is called before [Load]; the
// function that it returns gives the same to other flags.
func CommandLine(fs *pflag.FlagSet) (replay func(*pflag.FlagSet) error) {
	given := map[string]string{}
	lists := map[string][]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			lists[f.Name] = list.GetSlice()
			return
		}
		given[f.Name] = f.Value.String()
	})
	return func(to *pflag.FlagSet) error {
		for name, value := range given {
			if to.Lookup(name) == nil { // such as --help, which the command line's own set has
				continue
			}
			if err := to.Set(name, value); err != nil {
				return err
			}
		}
		for name, words := range lists {
			f := to.Lookup(name)
			list, ok := f.Value.(pflag.SliceValue)
			if !ok {
				return fmt.Errorf("--%s is a list no more", name)
			}
			if err := list.Replace(words); err != nil {
				return err
			}
			f.Changed = true
		}
		return nil
	}
}

// ReloaderConfig is what a Reloader is built from; all of it is required.
type ReloaderConfig struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Running *pflag.FlagSet                 // the options that the program runs with, complete
	Load    func() (*pflag.FlagSet, error) // loads and checks them anew, from the same sources
	Live    Live
}

// Reloader loads a program's options anew when it is told to, puts into effect what can change while it runs, and says
// in the log what needs a restart. Options that are not valid as a whole change nothing.
type Reloader struct {
	cfg     ReloaderConfig
	values  map[string]string // of the options in effect
	reloads *prometheus.CounterVec
	waiting prometheus.Gauge
}

// NewReloader notes the values that the program runs with.
func NewReloader(cfg ReloaderConfig) (*Reloader, error) {
	r := &Reloader{
		cfg: cfg, values: values(cfg.Running),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "appswitch_config_reloads_total", Help: "Reloads of the options (SIGHUP), by result: ok, or rejected because of a mistake in them.",
		}, []string{"result"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "appswitch_config_restart_pending_options", Help: "Options that the last reload found changed and that only a restart puts into effect.",
		}),
	}
	for _, result := range []string{"ok", "rejected"} {
		r.reloads.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{r.reloads, r.waiting} {
		if err := cfg.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return r, nil
}

// Run reloads at each signal until ctx ends, and then returns nil.
func (r *Reloader) Run(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			r.Reload()
		}
	}
}

// Reload loads the options once. It must not be called by two at a time.
func (r *Reloader) Reload() {
	fs, err := r.cfg.Load()
	if err != nil {
		r.reloads.WithLabelValues("rejected").Inc()
		r.cfg.Log.Error("options not reloaded, those from before hold", "error", err)
		return
	}
	fresh := values(fs)
	result, applied, waiting := "ok", []string{}, []string{}
	for _, name := range changed(r.values, fresh) {
		old, value := Mask(name, r.values[name]), Mask(name, fresh[name])
		apply, live := r.cfg.Live[name]
		if !live {
			waiting = append(waiting, name)
			r.cfg.Log.Warn("option changed, but only a restart puts it into effect", "option", name, "running", old, "configured", value)
			continue
		}
		if err := apply(fs); err != nil {
			result = "rejected"
			r.cfg.Log.Error("option not changed", "option", name, "running", old, "configured", value, "error", err)
			continue
		}
		r.values[name] = fresh[name]
		applied = append(applied, name)
		r.cfg.Log.Info("option changed", "option", name, "from", old, "to", value)
	}
	r.reloads.WithLabelValues(result).Inc()
	r.waiting.Set(float64(len(waiting)))
	r.cfg.Log.Info("options reloaded", "changed", applied, "need_restart", waiting)
}

// values returns the options as text, by flag.
func values(fs *pflag.FlagSet) map[string]string {
	out := map[string]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		if isOption(f.Name) {
			out[f.Name] = valueOf(f)
		}
	})
	return out
}

// changed lists the options whose values differ, sorted.
func changed(old, fresh map[string]string) []string {
	var out []string
	for name, value := range fresh {
		if before, ok := old[name]; ok && before != value {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
