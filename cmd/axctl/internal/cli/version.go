package cli

import (
	"fmt"

	"appswitch.io/internal/version"
	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show which build this is",
		Example: `  ax version`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Line(cmd.Root().Name()))
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
