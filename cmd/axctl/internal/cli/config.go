package cli

import (
	"github.com/spf13/cobra"
)

// newConfig holds what is about configuration.
func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Look at the configuration",
		Example: `  ax config view`,
	}
	group(cmd)
	cmd.AddCommand(newConfigView())
	return cmd
}
