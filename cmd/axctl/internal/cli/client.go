package cli

import (
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"github.com/spf13/cobra"
)

// clientFlags say which daemon a command talks to.
type clientFlags struct {
	server  string
	timeout time.Duration
}

// addClientFlags adds the flags to cmd and to every command below it.
func addClientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{}
	fs := cmd.PersistentFlags()
	fs.StringVar(&f.server, "server", environment("AX_SERVER", api.DefaultServer), "`URL` of the daemon's REST interface (AX_SERVER)")
	fs.DurationVar(&f.timeout, "timeout", api.DefaultTimeout, "give up on a request after this `duration`")
	_ = cmd.RegisterFlagCompletionFunc("server", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return f
}

func (f *clientFlags) client() (*api.Client, error) {
	c, err := api.New(f.server, f.timeout)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}
