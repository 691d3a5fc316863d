// Command axctl, also installed as ax, is AppSwitch: the daemon, the launcher of applications, and the tool to look at
// both.
package main

import (
	"os"

	"appswitch.io/cmd/axctl/internal/cli"
	// Runs `ax run` before anything else is initialised.
	_ "appswitch.io/services/nodeagent/launch/early"
)

func main() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
