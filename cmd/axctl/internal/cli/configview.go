package cli

import (
	"cmp"

	"appswitch.io/cmd/axctl/internal/daemon"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newConfigView() *cobra.Command {
	// A set of their own, so that the options of this command are none of the daemon's.
	o, fs := daemon.DefaultOptions(), pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	o.Flags(fs)
	format := output.NewFormatFlag(output.FormatTable, output.FormatJSON, output.FormatYAML)
	noHeaders, changed := false, false
	cmd := &cobra.Command{
		Use:   "view",
		Short: "Show the options that 'ax daemon' would have, and where each comes from",
		Long: `Show the options that 'ax daemon' would have, started here and now with the same options, and where each comes from:
the command line (flag), AX_OPTS, a variable, a line of a file, or nowhere (default). Secrets are masked.

The separate daemons have --show-config instead.`,
		Example: `  ax config view
  ax config view --changed                     without the defaults
  ax config view --config ./node1.yaml -o json
  AX_NODE_NAME=node1 ax config view --dns=false`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			origins, err := loadDaemon(o, fs)
			if err != nil {
				return usageError{err}
			}
			settings := config.View(fs, origins)
			if changed {
				settings = given(settings, origins)
			}
			if format.Value != output.FormatTable {
				return output.WriteData(cmd.OutOrStdout(), format.Value, map[string]any{"options": settings})
			}
			t := output.Table{Header: []string{"OPTION", "VALUE", "SOURCE"}}
			for _, s := range settings {
				t.Rows = append(t.Rows, []string{s.Name, cmp.Or(s.Value, "-"), s.Source})
			}
			return t.Write(cmd.OutOrStdout(), !noHeaders)
		},
	}
	cmd.Flags().AddFlagSet(fs)
	cmd.Flags().VarP(format, "output", "o", "`format`: "+format.Choices())
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "leave out the header")
	cmd.Flags().BoolVar(&changed, "changed", false, "show only what is not the default")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename(config.FileFlag, "yaml", "yml", "toml", "json")
	return cmd
}

// given leaves out the settings that nobody gave.
func given(settings []config.Setting, origins config.Origins) []config.Setting {
	out := []config.Setting{}
	for _, s := range settings {
		if origins[s.Name] != "" {
			out = append(out, s)
		}
	}
	return out
}
