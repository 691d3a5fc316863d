package attach

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/launch/wire"
)

// healthCheck reads the check that a program asks for.
func healthCheck(h wire.Hello) (ax.HealthCheck, error) {
	var o ax.HealthOptions
	for _, option := range h.Health {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "check":
			o.Check = value
		case "interval":
			o.Interval = value
		case "timeout":
			o.Timeout = value
		case "failures":
			o.Failures = value
		case "successes":
			o.Successes = value
		default:
			return ax.HealthCheck{}, fmt.Errorf("--health-%s: this daemon is older than the command: restart it", name)
		}
	}
	return o.HealthCheck()
}

// checkName admits host names: labels of letters, digits and hyphens (RFC 1123), joined by dots.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("longer than %d characters", maxName)
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return errors.New("is an address: give it with --ip")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("each part between dots has 1 to 63 characters and no hyphen at its ends")
		}
		if i := strings.IndexFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}); i >= 0 {
			return fmt.Errorf("%q is not allowed: use letters, digits and hyphens", label[i:i+1])
		}
	}
	return nil
}

func command(args []string) string {
	s := strings.Join(args, " ")
	return strings.ToValidUTF8(s[:min(len(s), maxCommand)], "")
}
