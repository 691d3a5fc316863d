package axpb

import (
	"fmt"
	"strings"

	"appswitch.io/internal/ax"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

// HealthFrom reads what checks say of an endpoint; nil means that there are none.
func HealthFrom(p *typev1.Health) (ax.Health, error) {
	h := ax.Health{Reason: p.GetReason()}
	switch p.GetState() {
	case typev1.HealthState_HEALTH_STATE_UNSPECIFIED:
	case typev1.HealthState_HEALTH_STATE_HEALTHY:
		h.State = ax.Healthy
	case typev1.HealthState_HEALTH_STATE_UNHEALTHY:
		h.State = ax.Unhealthy
	default: // of a newer node: used like one without checks
	}
	if len(h.Reason) > ax.MaxHealthReason {
		return h, fmt.Errorf("health.reason: %d bytes, at most %d", len(h.Reason), ax.MaxHealthReason)
	}
	return h, nil
}

// Health writes what checks say of an endpoint; nil if there are none.
func Health(h ax.Health) *typev1.Health {
	p := &typev1.Health{Reason: strings.ToValidUTF8(h.Reason[:min(len(h.Reason), ax.MaxHealthReason)], "")}
	switch h.State {
	case ax.Healthy:
		p.State = typev1.HealthState_HEALTH_STATE_HEALTHY
	case ax.Unhealthy:
		p.State = typev1.HealthState_HEALTH_STATE_UNHEALTHY
	default:
		return nil
	}
	return p
}

// checkTypes are the types of checks, in both forms.
var checkTypes = map[ax.CheckType]typev1.HealthCheckType{
	ax.CheckTCP:  typev1.HealthCheckType_HEALTH_CHECK_TYPE_TCP,
	ax.CheckHTTP: typev1.HealthCheckType_HEALTH_CHECK_TYPE_HTTP,
	ax.CheckGRPC: typev1.HealthCheckType_HEALTH_CHECK_TYPE_GRPC,
}

// HealthCheckFrom reads how endpoints are checked; nil, or a type of a newer version, means not at all.
func HealthCheckFrom(p *typev1.HealthCheck) (ax.HealthCheck, error) {
	var c ax.HealthCheck
	for kind, t := range checkTypes {
		if t == p.GetType() {
			c.Type = kind
		}
	}
	if c.Type == "" {
		return ax.HealthCheck{}, nil
	}
	port, err := PortFrom("health_check.port", p.GetPort())
	if err != nil {
		return c, err
	}
	c.Port, c.Path = port, p.GetPath()
	c.Failures, c.Successes = int(min(p.GetFailures(), 1<<16)), int(min(p.GetSuccesses(), 1<<16))
	if c.Interval, err = durationFrom("health_check.interval", p.GetInterval()); err != nil {
		return c, err
	}
	if c.Timeout, err = durationFrom("health_check.timeout", p.GetTimeout()); err != nil {
		return c, err
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("health_check: %w", err)
	}
	return c, nil
}

// HealthCheck writes how endpoints are checked; nil if they are not.
func HealthCheck(c ax.HealthCheck) *typev1.HealthCheck {
	if c.Type == "" {
		return nil
	}
	return &typev1.HealthCheck{
		Type: checkTypes[c.Type], Port: uint32(c.Port), Path: c.Path, Interval: duration(c.Interval), Timeout: duration(c.Timeout),
		Failures: uint32(c.Failures), Successes: uint32(c.Successes),
	}
}
