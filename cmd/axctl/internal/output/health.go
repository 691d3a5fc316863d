package output

import (
	"fmt"
	"strings"
	"time"

	"appswitch.io/internal/axpb"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
)

// Health writes how an endpoint is: what is found by its own node's checks, whether the node that answers leaves it out,
// and whether it is drained; nothing if nobody knows.
func Health(now time.Time, e *typev1.Endpoint) string {
	var parts []string
	switch e.GetHealth().GetState() {
	case typev1.HealthState_HEALTH_STATE_HEALTHY:
		parts = append(parts, "healthy")
	case typev1.HealthState_HEALTH_STATE_UNHEALTHY:
		text := "unhealthy"
		if reason := e.GetHealth().GetReason(); reason != "" {
			text += " (" + reason + ")"
		}
		parts = append(parts, text)
	}
	if until := e.GetEjectedUntil(); until != nil {
		parts = append(parts, fmt.Sprintf("ejected for %s here", Duration(until.AsTime().Sub(now))))
	}
	if e.GetDraining() {
		parts = append(parts, "draining")
	}
	return strings.Join(parts, ", ")
}

func healthTone(e *typev1.Endpoint) Tone {
	switch {
	case e.GetHealth().GetState() == typev1.HealthState_HEALTH_STATE_UNHEALTHY || e.GetEjectedUntil() != nil:
		return Bad
	case e.GetHealth().GetState() == typev1.HealthState_HEALTH_STATE_HEALTHY:
		return Good
	}
	return Plain
}

// healthCheck writes how an application's services are checked, as --health-check takes it, and how often.
func healthCheck(a *typev1.App) string {
	c, err := axpb.HealthCheckFrom(a.GetHealthCheck())
	if err != nil || c.Type == "" {
		return ""
	}
	return fmt.Sprintf("%s every %s", c, c.Interval)
}
