package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"appswitch.io/internal/webguard"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the debug port. Profiles may run for the minute that a caller asks for.
const (
	debugHeaderTimeout = 5 * time.Second
	debugWriteTimeout  = 2 * time.Minute
	debugIdleTimeout   = time.Minute
	debugStopTimeout   = time.Second
	debugMaxHeader     = 16 << 10
	debugMaxScrapes    = 4
	maxLevelBody       = 64
)

func (t *Telemetry) serveDebug(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", t.cfg.MetricsListen)
	if err != nil {
		return fmt.Errorf("--metrics-listen: %w (choose another port, or an empty value for none)", err)
	}
	srv := &http.Server{
		Handler:           t.debugHandler(),
		ReadHeaderTimeout: debugHeaderTimeout, ReadTimeout: debugHeaderTimeout, WriteTimeout: debugWriteTimeout, IdleTimeout: debugIdleTimeout,
		MaxHeaderBytes: debugMaxHeader,
	}
	stopped := make(chan struct{})
	go func() { // ends with ctx, and serveDebug waits for it
		defer close(stopped)
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), debugStopTimeout)
		defer cancel()
		if srv.Shutdown(late) != nil {
			_ = srv.Close()
		}
	}()
	err = srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve %s: %w", t.cfg.MetricsListen, err)
}

func (t *Telemetry) debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: debugMaxScrapes, Registry: t.Metrics}))
	mux.HandleFunc("GET /healthz", t.serveHealth)
	mux.HandleFunc("GET /loglevel", func(w http.ResponseWriter, _ *http.Request) { t.writeLevel(w) })
	mux.HandleFunc("PUT /loglevel", t.setLevel)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return webguard.Protect(mux, nil, webguard.Plain)
}

func (t *Telemetry) serveHealth(w http.ResponseWriter, r *http.Request) {
	if t.health != nil {
		if err := t.health(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	_, _ = io.WriteString(w, "ok\n")
}

// setLevel takes a level as the body: curl -X PUT -d debug http://127.0.0.1:6666/loglevel.
func (t *Telemetry) setLevel(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevelBody))
	if err != nil {
		http.Error(w, "the body is a level: debug, info, warn or error", http.StatusBadRequest)
		return
	}
	level, err := parseLevel(strings.TrimSpace(string(body)))
	if err != nil {
		http.Error(w, "log level "+err.Error(), http.StatusBadRequest)
		return
	}
	t.level.Set(level)
	t.Log.Info("log level changed", "level", level.String())
	t.writeLevel(w)
}

func (t *Telemetry) writeLevel(w http.ResponseWriter) {
	_, _ = io.WriteString(w, strings.ToLower(t.level.Level().String())+"\n")
}
