package cli

import (
	"github.com/spf13/cobra"
)

// newConfig holds what is about configuration: the daemon's options, and the daemons that this user talks to.
func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the daemon's options, and keep the daemons that you talk to under names: contexts",
		Long: `Look at the daemon's options (view), and keep the daemons that you talk to under names. A context is the address of a
daemon's REST interface with the files for TLS; they are kept in ~/.config/appswitch/config.yaml, or in $XDG_CONFIG_HOME.

--server and --context on the command line win, then AX_SERVER and AX_CONTEXT, then the current context. Without any of
them commands talk to the daemon of this machine.`,
		Example: `  ax config view                    the options of 'ax daemon' here, and where each comes from
  ax config set-context prod --server https://10.0.0.5:6664 --tls-ca-cert ca.pem --tls-cert me.pem --tls-key me.key
  ax config use-context prod
  ax get apps                       those of prod
  ax get apps --context lab         those of another`,
	}
	group(cmd)
	cmd.AddCommand(newConfigView())
	cmd.AddCommand(contextCommands()...)
	return cmd
}
