package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output collects logs.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func build(t *testing.T, edit func(*Config), opts Options) (*Telemetry, *output) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.MetricsListen = ""
	edit(&cfg)
	out := &output{}
	opts.Program, opts.Output = "testd", out
	tel, err := New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return tel, out
}

// runFor runs telemetry during f.
func runFor(t *testing.T, tel *Telemetry, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tel.Run(ctx) }()
	f()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not return")
	}
}

func TestLogsInBothFormats(t *testing.T) {
	text, out := build(t, func(*Config) {}, Options{})
	text.Log.Debug("hidden")
	text.Log.Info("seen", "key", "a b")
	if s := out.String(); strings.Contains(s, "hidden") || !strings.Contains(s, `msg=seen program=testd key="a b"`) {
		t.Errorf("text: %q", s)
	}
	js, out := build(t, func(c *Config) { c.LogFormat, c.LogLevel = "json", "ERROR" }, Options{})
	js.Log.Warn("hidden")
	js.Log.Error("seen", "key", 7)
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil || line["msg"] != "seen" || line["program"] != "testd" || line["key"] != 7.0 {
		t.Errorf("json: %v, %v", line, err)
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		`--log-level: "loud"`:                 func(c *Config) { c.LogLevel = "loud" },
		`--log-level: "info+2"`:               func(c *Config) { c.LogLevel = "info+2" },
		`--log-format "xml"`:                  func(c *Config) { c.LogFormat = "xml" },
		`--metrics-listen "6666"`:             func(c *Config) { c.MetricsListen = "6666" },
		`--metrics-listen "0.0.0.0:6666"`:     func(c *Config) { c.MetricsListen = "0.0.0.0:6666" },
		`--metrics-listen ":6666"`:            func(c *Config) { c.MetricsListen = ":6666" },
		`--metrics-listen "example.com:6666"`: func(c *Config) { c.MetricsListen = "example.com:6666" },
		`--otlp-endpoint "collector:4317"`:    func(c *Config) { c.OTLPEndpoint = "collector:4317" },
	} {
		cfg := DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := New(cfg, Options{Output: io.Discard}); err == nil {
			t.Errorf("New took what %q says", want)
		}
	}
}

func TestFlags(t *testing.T) {
	cfg := DefaultConfig()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	cfg.Flags(fs)
	err := fs.Parse([]string{"--log-level=debug", "--log-format=json", "--metrics-listen=[::1]:1", "--otlp-endpoint=http://c:4317", "--cpu-profile=c", "--mem-profile=m"})
	if want := (Config{"debug", "json", "[::1]:1", "http://c:4317", "c", "m"}); err != nil || cfg != want || cfg.Validate() != nil {
		t.Errorf("got %+v, %v, %v", cfg, err, cfg.Validate())
	}
}

func TestDebugPages(t *testing.T) {
	var sick error
	tel, out := build(t, func(*Config) {}, Options{Health: func(context.Context) error { return sick }})
	h := tel.debugHandler()
	call := func(method, path, body string) (int, string) {
		r := httptest.NewRequest(method, "http://127.0.0.1:6666"+path, strings.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	sick = io.ErrUnexpectedEOF
	if code, body := call("GET", "/healthz", ""); code != 503 || !strings.Contains(body, "unexpected EOF") {
		t.Errorf("unhealthy: %d %q", code, body)
	}
	sick = nil
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/metrics", "", 200, `appswitch_build_info{program="testd"`},
		{"GET", "/metrics", "", 200, "go_goroutines"},
		{"GET", "/debug/pprof/", "", 200, "goroutine"},
		{"GET", "/debug/pprof/goroutine?debug=1", "", 200, "goroutine profile"},
		{"GET", "/loglevel", "", 200, "info"},
		{"PUT", "/loglevel", "loud", 400, "want debug, info, warn or error"},
		{"PUT", "/loglevel", strings.Repeat("x", 1000), 400, "the body is a level"},
		{"PUT", "/loglevel", " Debug\n", 200, "debug"},
		{"GET", "/loglevel", "", 200, "debug"},
		{"POST", "/loglevel", "info", 405, ""},
		{"GET", "/nothing", "", 404, ""},
	} {
		if code, body := call(c.method, c.path, c.body); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %q: %d, want %d with %q in\n%s", c.method, c.path, c.body, code, c.code, c.want, body)
		}
	}
	tel.Log.Debug("now seen")
	if s := out.String(); !strings.Contains(s, "now seen") || !strings.Contains(s, "log level changed") {
		t.Errorf("log: %s", s)
	}
	r := httptest.NewRequest(http.MethodPut, "http://evil.example/loglevel", strings.NewReader("error"))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("a rebound name: %d", w.Code)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDebugPortServesUntilTheEnd(t *testing.T) {
	addr := freePort(t)
	tel, _ := build(t, func(c *Config) { c.MetricsListen = addr }, Options{})
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() error {
		resp, err := client.Get("http://" + addr + "/healthz")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	runFor(t, tel, func() {
		for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if err := get(); err == nil {
				return
			} else if time.Now().After(until) {
				t.Fatal(err)
			}
		}
	})
	if err := get(); err == nil {
		t.Error("the port still answers after the end")
	}
}

func TestTakenDebugPortIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tel, _ := build(t, func(c *Config) { c.MetricsListen = l.Addr().String() }, Options{})
	if err := tel.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "--metrics-listen") {
		t.Errorf("got %v", err)
	}
}

func TestProfilesAreWrittenAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	cpu, mem := filepath.Join(dir, "cpu"), filepath.Join(dir, "mem")
	tel, _ := build(t, func(c *Config) { c.CPUProfile, c.MemProfile = cpu, mem }, Options{})
	runFor(t, tel, func() { time.Sleep(50 * time.Millisecond) })
	for _, f := range []string{cpu, mem} {
		b, err := os.ReadFile(f)
		if err != nil || len(b) < 2 || b[0] != 0x1f || b[1] != 0x8b { // profiles are gzipped
			t.Errorf("%s: %d bytes, %v", f, len(b), err)
		}
	}
	for want, edit := range map[string]func(*Config){
		"--cpu-profile": func(c *Config) { c.CPUProfile = dir + "/none/cpu" },
		"--mem-profile": func(c *Config) { c.CPUProfile, c.MemProfile = cpu, dir+"/none/mem" },
	} {
		tel, _ := build(t, edit, Options{})
		if err := tel.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
