// Package telemetry is what a process tells about itself: logs (slog), metrics and profiles (Prometheus, pprof), traces.
//
// Services see slog, prometheus.Registerer and opentracing only; OpenTelemetry is behind them here and nowhere else. Its
// invariant: telemetry never holds up the work. Logs go to a writer, spans into a bounded queue that drops and counts.
// Start reading at [New] and [Telemetry.Run].
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"appswitch.io/internal/config"
	"appswitch.io/internal/version"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
)

// Telemetry holds what services are given.
type Telemetry struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Tracer  opentracing.Tracer

	cfg    Config
	level  *slog.LevelVar
	health func(context.Context) error
	spans  *spanQueue // nil: no traces
}

// Options say whose telemetry it is.
type Options struct {
	Program string                      // name of the program, in logs and traces
	Output  io.Writer                   // of the logs
	Health  func(context.Context) error // answers /healthz; nil: always healthy
}

// New builds logger, metrics and tracer. Nothing runs yet.
func New(cfg Config, opts Options) (*Telemetry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	level, err := parseLevel(cfg.LogLevel)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{cfg: cfg, level: &slog.LevelVar{}, health: opts.Health, Metrics: prometheus.NewRegistry(), Tracer: opentracing.NoopTracer{}}
	t.level.Set(level)
	ho := &slog.HandlerOptions{Level: t.level}
	var h slog.Handler = slog.NewTextHandler(opts.Output, ho)
	if cfg.LogFormat == "json" {
		h = slog.NewJSONHandler(opts.Output, ho)
	}
	t.Log = slog.New(h).With("program", opts.Program)
	v := version.Get()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "appswitch_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"program": opts.Program, "version": v.Number, "revision": v.Revision},
	})
	info.Set(1)
	for _, c := range []prometheus.Collector{info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := t.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	if cfg.OTLPEndpoint != "" {
		if t.spans, t.Tracer, err = newTracer(cfg.OTLPEndpoint, opts.Program, t.Log, t.Metrics); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Live returns the options that can change while the process runs.
func (t *Telemetry) Live() config.Live {
	return config.Live{"log-level": func(fs *pflag.FlagSet) error {
		level, err := parseLevel(fs.Lookup("log-level").Value.String())
		if err == nil {
			t.level.Set(level)
		}
		return err
	}}
}

// Run serves the debug port, sends spans and takes profiles until ctx ends, then writes what is left. It should outlive
// the services, so that it sees their end.
func (t *Telemetry) Run(ctx context.Context) error {
	stop, err := t.startProfiles()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if t.cfg.MetricsListen != "" {
		g.Go(func() error { return t.serveDebug(ctx) })
	}
	if t.spans != nil {
		g.Go(func() error { return t.spans.run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return stop()
	})
	return g.Wait()
}
