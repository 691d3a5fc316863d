package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/connectivity"
	"appswitch.io/cmd/axctl/internal/output"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"github.com/spf13/cobra"
)

func newConnectivity() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "connectivity",
		Short:   "Test a running AppSwitch from end to end",
		Example: `  sudo ax connectivity test`,
	}
	group(cmd)
	cmd.AddCommand(newConnectivityTest(), newConnectivityProbe())
	return cmd
}

func newConnectivityTest() *cobra.Command {
	format := output.NewFormatFlag(output.FormatTable, output.FormatJSON)
	var runDir string
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Start real servers and clients, and check that they reach each other as they should",
		Long: `Start real servers and clients under 'ax run' on this machine, and check that they reach each other as they should: by
address and by name, only where labels allow it, balanced, with the addresses that they should see.

The programs are this binary; they have a name and address of their own, and are gone when the test ends. The exit status
is 1 if anything is not as it should be. It needs the daemon of this machine, and root, because names and labels do.`,
		Example: `  sudo ax connectivity test
  sudo ax connectivity test -o json | jq 'select(.ok | not)'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := addClientFlags(cmd)
	cmd.Flags().VarP(format, "output", "o", "`format`: "+format.Choices())
	cmd.Flags().StringVar(&runDir, "run-dir", "", "`directory` of the agent's socket (AX_RUN_DIR)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("run-dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := flags.client()
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		ctx, stop := untilInterrupt(cmd.Context())
		defer stop()
		w := &checkWriter{cmd: cmd, format: format.Value}
		ok, err := connectivity.Run(ctx, connectivity.Config{
			Self: self, RunDir: runDir, Report: w.report,
			Endpoints: func(ctx context.Context) ([]connectivity.Endpoint, error) { return endpointsOf(ctx, client) },
			Explain: func(ctx context.Context, labels, to string) (string, error) {
				return verdictOf(ctx, client, labels, to)
			},
		})
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted after %d checks", w.done)
		case err != nil:
			return fmt.Errorf("connectivity test: %w", err)
		case w.err != nil:
			return w.err
		case !ok:
			return fmt.Errorf("%d of %d checks failed; `ax status`, `ax check` and `ax explain` tell more", w.failed, w.done)
		}
		return nil
	}
	return cmd
}

func endpointsOf(ctx context.Context, client *api.Client) ([]connectivity.Endpoint, error) {
	_, items, err := servers.load(ctx, client)
	if err != nil {
		return nil, err
	}
	var out []connectivity.Endpoint
	for _, it := range items {
		out = append(out, connectivity.Endpoint{
			Name: it.msg.GetName(), Service: output.Address(it.msg.GetServiceAddress()), Host: output.Address(it.msg.GetHostAddress()),
		})
	}
	return out, nil
}

func verdictOf(ctx context.Context, client *api.Client, labels, to string) (string, error) {
	var reply routerv1.ExplainResponse
	_, err := client.Get(ctx, "/v1/explain", url.Values{"labels": strings.Split(labels, ","), "destination": {to}}, &reply)
	return strings.ToLower(strings.TrimPrefix(reply.GetVerdict().String(), "VERDICT_")), err
}

// checkWriter writes results as they come.
type checkWriter struct {
	cmd          *cobra.Command
	format       output.Format
	done, failed int
	err          error // of writing
}

func (w *checkWriter) report(r connectivity.Result) {
	w.done++
	if !r.OK {
		w.failed++
	}
	if w.err != nil {
		return
	}
	out := w.cmd.OutOrStdout()
	if w.format == output.FormatJSON {
		data, err := json.Marshal(r)
		if err == nil {
			err = output.WriteLine(out, data)
		}
		w.err = err
		return
	}
	mark, tone := "✓", output.Good
	if !r.OK {
		mark, tone = "✗", output.Bad
	}
	t := output.Table{
		Header: []string{"", "CHECK", "TIME", "FINDING"},
		Rows:   [][]string{{mark, r.Check, r.Took.Round(time.Millisecond).String(), r.Detail}},
		Tones:  [][]output.Tone{{tone}},
		Widths: []int{1, len("a port that nobody serves: refused"), len("1.234s")},
	}
	if r.OK {
		t.Header, t.Rows[0] = t.Header[:3], t.Rows[0][:3]
	}
	w.err = t.Write(out, false)
}

// newConnectivityProbe is what the test's programs run.
func newConnectivityProbe() *cobra.Command {
	cmd := &cobra.Command{Use: "probe", Short: "Be a server or client of the connectivity test", Hidden: true, Example: "  ax connectivity probe call --to web:80"}
	group(cmd)
	to, tag := "", ""
	var port uint16
	var size int
	var within time.Duration
	serve := &cobra.Command{
		Use: "serve", Short: "Answer requests until standard input ends", Args: cobra.NoArgs, Example: "  ax connectivity probe serve --port 80 --tag a",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return connectivity.Serve(cmd.Context(), port, tag, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	serve.Flags().Uint16Var(&port, "port", 0, "`port` to listen at")
	serve.Flags().StringVar(&tag, "tag", "", "`name` to answer with")
	call := &cobra.Command{
		Use: "call", Short: "Make one request, and write how it ended as JSON", Args: cobra.NoArgs, Example: "  ax connectivity probe call --to web:80",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(connectivity.Call(cmd.Context(), to, size, within))
		},
	}
	call.Flags().StringVar(&to, "to", "", "`HOST:PORT` of the server")
	call.Flags().IntVar(&size, "bytes", 0, "`bytes` to send")
	call.Flags().DurationVar(&within, "within", 10*time.Second, "`duration` in which the answer must come")
	name, over := "", ""
	lookup := &cobra.Command{
		Use: "lookup", Short: "Look up a name, and write how it ended as JSON", Args: cobra.NoArgs, Example: "  ax connectivity probe lookup --name web --over udp",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(connectivity.Lookup(cmd.Context(), name, over, within))
		},
	}
	lookup.Flags().StringVar(&name, "name", "", "`name` to look up")
	lookup.Flags().StringVar(&over, "over", "udp", "`way` to ask: udp, udp-unconnected or tcp")
	lookup.Flags().DurationVar(&within, "within", 10*time.Second, "`duration` in which the answer must come")
	cmd.AddCommand(serve, call, lookup)
	return cmd
}
