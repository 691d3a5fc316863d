package launch

import (
	"errors"

	"appswitch.io/services/nodeagent/launch/options"
	"appswitch.io/services/nodeagent/launch/wire"
)

func supervise(o options.Run, a *agent, w *wire.Welcome, userNamespace bool) error {
	return errors.New("not yet")
}

func stage(args []string) int { return exitFailed }
