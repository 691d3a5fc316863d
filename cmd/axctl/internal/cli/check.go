package cli

import (
	"fmt"
	"io"

	"appswitch.io/cmd/axctl/internal/check"
	"appswitch.io/cmd/axctl/internal/output"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	format := output.NewFormatFlag(output.FormatTable, output.FormatJSON, output.FormatYAML)
	o := check.DefaultOptions()
	o.RunDir = environment("AX_RUN_DIR", o.RunDir)
	o.StateDir = environment("AX_STATE_DIR", o.StateDir)
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check whether this machine can run AppSwitch",
		Long: `Check whether this machine can run the daemon and programs under it: kernel, privileges, namespaces, directories, ports.
It needs no daemon and changes nothing. The exit status is 1 if something (✗) has to be fixed first.`,
		Example: `  sudo ax check
  sudo ax check -o json | jq '.checks[] | select(.state != "ok")'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			results := check.Run(cmd.Context(), o)
			if err := writeChecks(cmd.OutOrStdout(), format.Value, results); err != nil {
				return err
			}
			if !check.Ready(results) {
				return errReported
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.VarP(format, "output", "o", "`format`: "+format.Choices())
	fs.StringVar(&o.RunDir, "run-dir", o.RunDir, "`directory` of the agent's socket (AX_RUN_DIR)")
	fs.StringVar(&o.StateDir, "state-dir", o.StateDir, "`directory` of what the daemon keeps (AX_STATE_DIR)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

var (
	checkMarks = map[check.State]string{check.OK: "✓", check.Warning: "!", check.Failed: "✗"}
	checkTones = map[check.State]output.Tone{check.OK: output.Good, check.Warning: output.Doubtful, check.Failed: output.Bad}
)

func writeChecks(w io.Writer, format output.Format, results []check.Result) error {
	ready := check.Ready(results)
	if format != output.FormatTable {
		return output.WriteData(w, format, map[string]any{"ready": ready, "checks": results})
	}
	var t output.Table
	t.Header = []string{"", "CHECK", "FINDING"}
	for _, r := range results {
		t.Rows = append(t.Rows, []string{checkMarks[r.State], r.Name, r.Detail})
		t.Tones = append(t.Tones, []output.Tone{checkTones[r.State]})
		if r.Fix != "" {
			t.Rows = append(t.Rows, []string{" ", " ", "fix: " + r.Fix})
			t.Tones = append(t.Tones, nil)
		}
	}
	if err := t.Write(w, false); err != nil {
		return err
	}
	verdict := "AppSwitch can run here."
	if !ready {
		verdict = "AppSwitch can't run here until what is marked ✗ is fixed."
	}
	_, err := fmt.Fprintln(w, "\n"+verdict)
	return err
}
