package telemetry

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/pflag"
)

// Config is what the user chooses about telemetry.
type Config struct {
	LogLevel      string // debug, info, warn or error
	LogFormat     string // text or json
	MetricsListen string // address of metrics and pprof; empty: none
	OTLPEndpoint  string // where spans go; empty: nowhere
	CPUProfile    string // file, written on shutdown
	MemProfile    string // file, written on shutdown
}

// DefaultConfig returns what holds without flags.
func DefaultConfig() Config {
	return Config{LogLevel: "info", LogFormat: "text", MetricsListen: "127.0.0.1:6666"}
}

// Flags declares the options.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error; can be changed later with SIGHUP, or PUT /loglevel on --metrics-listen")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
	fs.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "loopback ADDRESS:PORT of /metrics, /healthz, /loglevel and /debug/pprof; empty for none")
	fs.StringVar(&c.OTLPEndpoint, "otlp-endpoint", c.OTLPEndpoint, "send traces to this OpenTelemetry collector over gRPC: http://HOST:4317, or https:// with TLS")
	fs.StringVar(&c.CPUProfile, "cpu-profile", c.CPUProfile, "write a CPU profile to this file on shutdown")
	fs.StringVar(&c.MemProfile, "mem-profile", c.MemProfile, "write a heap profile to this file on shutdown")
}

// Validate reports an option that can't work.
func (c Config) Validate() error {
	if _, err := parseLevel(c.LogLevel); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("--log-format %q: want text or json", c.LogFormat)
	}
	if c.MetricsListen != "" {
		host, _, err := net.SplitHostPort(c.MetricsListen)
		if err != nil {
			return fmt.Errorf("--metrics-listen %q: want ADDRESS:PORT, such as 127.0.0.1:6666", c.MetricsListen)
		}
		// Whoever reaches pprof can read the process's memory; it has no authentication of its own.
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("--metrics-listen %q: only loopback addresses are served, such as 127.0.0.1:6666", c.MetricsListen)
		}
	}
	if c.OTLPEndpoint != "" {
		u, err := url.Parse(c.OTLPEndpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--otlp-endpoint %q: want http://HOST:PORT or https://HOST:PORT", c.OTLPEndpoint)
		}
	}
	return nil
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	switch strings.ToLower(s) {
	case "debug", "info", "warn", "error":
		return l, l.UnmarshalText([]byte(s))
	}
	return l, fmt.Errorf("%q: want debug, info, warn or error", s)
}
