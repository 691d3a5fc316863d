package ax

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// HealthState is what active checks say of an endpoint.
type HealthState uint8

// The states. What is not checked is used like what is healthy.
const (
	Unchecked HealthState = 0 // no check was asked for, or none has ended yet
	Healthy   HealthState = 1
	Unhealthy HealthState = 2 // used only where no other endpoint is left
)

// MaxHealthReason bounds Health.Reason, in bytes.
const MaxHealthReason = 128

// Health is the state of an endpoint as its own node's checks find it.
type Health struct {
	State  HealthState
	Reason string // why it is unhealthy, for people
}

// CheckType is a way to check an endpoint; empty: none.
type CheckType string

// The checks.
const (
	CheckTCP  CheckType = "tcp"  // it accepts a connection
	CheckHTTP CheckType = "http" // it answers GET with a status of 2xx or 3xx
	CheckGRPC CheckType = "grpc" // it answers grpc.health.v1.Health/Check with SERVING
)

// HealthCheck says how an application wants its endpoints checked. The zero HealthCheck is none.
type HealthCheck struct {
	Type      CheckType
	Port      uint16 // of the application, at which it is checked for all endpoints; 0: each endpoint at its own
	Path      string // of HTTP, or service of gRPC
	Interval  time.Duration
	Timeout   time.Duration
	Failures  int // in a row that make an endpoint unhealthy
	Successes int // in a row that make it healthy again
}

// Limits and defaults of a check.
const (
	MinCheckInterval      = 100 * time.Millisecond
	MaxCheckInterval      = time.Hour
	DefaultCheckInterval  = 5 * time.Second
	MinCheckTimeout       = 10 * time.Millisecond
	DefaultCheckTimeout   = time.Second
	MaxCheckThreshold     = 100
	DefaultCheckFailures  = 3
	DefaultCheckSuccesses = 1
	MaxCheckPath          = 256 // bytes
)

// ParseHealthCheck reads "tcp", "tcp:PORT", "http:/PATH", "http:PORT/PATH", "grpc", "grpc:SERVICE", "grpc:PORT" or
// "grpc:PORT/SERVICE"; the rest has its default.
func ParseHealthCheck(s string) (HealthCheck, error) {
	kind, rest, _ := strings.Cut(s, ":")
	c := HealthCheck{
		Type: CheckType(kind), Interval: DefaultCheckInterval, Timeout: DefaultCheckTimeout,
		Failures: DefaultCheckFailures, Successes: DefaultCheckSuccesses,
	}
	if c.Type != CheckTCP && c.Type != CheckHTTP && c.Type != CheckGRPC {
		return c, fmt.Errorf("%q: want tcp, http:/PATH or grpc:SERVICE, each with a port after the colon if need be", s)
	}
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	if digits != "" {
		port, err := parsePort(digits)
		if err != nil {
			return c, fmt.Errorf("%q: %w", s, err)
		}
		c.Port, rest = port, rest[len(digits):]
		if c.Type == CheckGRPC && rest != "" {
			if rest[0] != '/' || rest == "/" {
				return c, fmt.Errorf("%q: want grpc:PORT/SERVICE", s)
			}
			rest = rest[1:]
		}
	}
	c.Path = rest
	if c.Type == CheckHTTP && c.Path == "" {
		c.Path = "/"
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%q: %w", s, err)
	}
	return c, nil
}

// String writes type, port and path as ParseHealthCheck reads them; empty if there is no check.
func (c HealthCheck) String() string {
	out := string(c.Type)
	port := ""
	if c.Port != 0 {
		port = strconv.Itoa(int(c.Port))
	}
	path := c.Path
	if c.Type == CheckGRPC && port != "" && path != "" {
		path = "/" + path
	}
	if port+path == "" {
		return out
	}
	return out + ":" + port + path
}

// Validate reports the first thing that makes a check impossible.
func (c HealthCheck) Validate() error {
	switch {
	case c.Type != CheckTCP && c.Type != CheckHTTP && c.Type != CheckGRPC:
		return fmt.Errorf("check %q: want tcp, http or grpc", string(c.Type))
	case c.Type == CheckTCP && c.Path != "":
		return fmt.Errorf("%q after tcp: want a port or nothing", c.Path)
	case c.Type == CheckHTTP && !strings.HasPrefix(c.Path, "/"):
		return fmt.Errorf("path %q: want one that begins with /", c.Path)
	case len(c.Path) > MaxCheckPath || strings.IndexFunc(c.Path, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return fmt.Errorf("%q: want at most %d printable characters without a blank", c.Path, MaxCheckPath)
	case c.Interval < MinCheckInterval || c.Interval > MaxCheckInterval:
		return fmt.Errorf("interval %s: want %s to %s", c.Interval, MinCheckInterval, MaxCheckInterval)
	case c.Timeout < MinCheckTimeout || c.Timeout > c.Interval:
		return fmt.Errorf("timeout %s: want %s to the interval, %s", c.Timeout, MinCheckTimeout, c.Interval)
	case c.Failures < 1 || c.Failures > MaxCheckThreshold:
		return fmt.Errorf("failures %d: want 1 to %d", c.Failures, MaxCheckThreshold)
	case c.Successes < 1 || c.Successes > MaxCheckThreshold:
		return fmt.Errorf("successes %d: want 1 to %d", c.Successes, MaxCheckThreshold)
	}
	return nil
}

// HealthOptions are the options of a check as somebody typed them; an empty one has its default.
type HealthOptions struct{ Check, Interval, Timeout, Failures, Successes string }

// HealthCheck reads the options. No check at all is the zero HealthCheck; the error names the option.
func (o HealthOptions) HealthCheck() (HealthCheck, error) {
	if o == (HealthOptions{}) {
		return HealthCheck{}, nil
	}
	if o.Check == "" {
		return HealthCheck{}, errors.New("--health-check: missing, and other --health options are given: say what to check, such as http:/healthz")
	}
	c, err := ParseHealthCheck(o.Check)
	if err != nil {
		return c, fmt.Errorf("--health-check %w", err)
	}
	for _, d := range []struct {
		name, value string
		to          *time.Duration
	}{{"interval", o.Interval, &c.Interval}, {"timeout", o.Timeout, &c.Timeout}} {
		if d.value == "" {
			continue
		}
		if *d.to, err = time.ParseDuration(d.value); err != nil {
			return c, fmt.Errorf("--health-%s %q: want a duration such as 500ms or 5s", d.name, d.value)
		}
	}
	if o.Timeout == "" {
		c.Timeout = min(c.Timeout, c.Interval)
	}
	for _, n := range []struct {
		name, value string
		to          *int
	}{{"failures", o.Failures, &c.Failures}, {"successes", o.Successes, &c.Successes}} {
		if n.value == "" {
			continue
		}
		if *n.to, err = strconv.Atoi(n.value); err != nil {
			return c, fmt.Errorf("--health-%s %q: want a number from 1 to %d", n.name, n.value, MaxCheckThreshold)
		}
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("--health-%w", err)
	}
	return c, nil
}
