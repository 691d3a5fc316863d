package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/ax"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"github.com/spf13/cobra"
)

// observeFlags are the flags of `observe`.
type observeFlags struct {
	flowFlags
	last      uint32
	since     time.Duration
	follow    bool
	noHeaders bool
	format    *output.FormatFlag
}

func newObserve() *cobra.Command {
	f := observeFlags{format: output.NewFormatFlag(output.FormatTable, output.FormatWide, output.FormatJSON)}
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Show the connects of this node's applications as they are decided: allowed, denied and why, retried",
		Long: `Show the connects of this node's applications as they are decided, until Ctrl-C: who connects where, the decision and its
reason, the real address, what the program was told, and how many servers had refused before.

What a policy in audit mode would refuse has the verdict audit, and that policy as its reason; it is carried out all the same.
The agent keeps the last 1024: --last and --since show those first, and --follow=false nothing else. With -o json there is
an object to a line. If connects come faster than they can be shown some are left out, and it says how many.`,
		Example: `  ax observe
  ax observe --verdict deny                    what is refused, and why
  ax observe --verdict audit                   what a policy in audit mode would refuse
  ax observe --app web --to :6379              connects of an app to a port
  ax observe --last 20 --follow=false          the last 20
  ax observe --since 5m -l role=prod -o json | jq -r .flow.reason | sort | uniq -c`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := addClientFlags(cmd)
	f.add(cmd, flags)
	fs := cmd.Flags()
	fs.Uint32Var(&f.last, "last", 0, "so many `past` connects first")
	fs.DurationVar(&f.since, "since", 0, "the connects of this `duration` first, such as 5m")
	fs.BoolVarP(&f.follow, "follow", "f", true, "go on with what comes; =false ends after the past")
	fs.BoolVar(&f.noHeaders, "no-headers", false, "leave out the header of the table")
	fs.VarP(f.format, "output", "o", "`format`: "+f.format.Choices())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.format.Names(), cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"last", "since"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd, flags) }
	return cmd
}

func (f *observeFlags) run(cmd *cobra.Command, flags *clientFlags) error {
	if f.since < 0 {
		return usagef("--since %s: want a duration that has passed, such as 5m", f.since)
	}
	client, err := flags.client()
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd.Context())
	defer stop()
	query, err := f.query(lookupName(ctx, client))
	if err != nil {
		return err
	}
	if f.last > 0 {
		query.Set("last", strconv.FormatUint(uint64(f.last), 10))
	}
	if f.since > 0 {
		query.Set("since", strconv.FormatFloat(f.since.Seconds(), 'f', -1, 64)+"s")
	}
	if !f.follow {
		query.Set("pastOnly", "true")
	}
	// The stream says nothing until there is a flow: a daemon that is not there shall be known at once.
	if _, _, err := nodes.load(ctx, client); err != nil {
		return err
	}
	out, errOut := cmd.OutOrStdout(), cmd.ErrOrStderr()
	t := flowTable(f.format.Value == output.FormatWide)
	if f.format.Value != output.FormatJSON && !f.noHeaders {
		header := output.Table{Header: t.header, Widths: t.widths}
		if err := header.Write(out, true); err != nil {
			return err
		}
	}
	say := func(err error) { fmt.Fprintf(errOut, "ax: %v; waiting for it\n", err) }
	return followFlows(ctx, client, query, !f.follow, say, func(raw json.RawMessage, m *nodeagentv1.WatchFlowsResponse) error {
		if f.format.Value == output.FormatJSON {
			return output.WriteLine(out, raw)
		}
		if n := m.GetMissed(); n > 0 {
			fmt.Fprintf(errOut, "ax: %d connects were left out: they come faster than they can be shown\n", n)
		}
		if m.GetFlow() == nil {
			return nil
		}
		rows := t.columns.Table([]*nodeagentv1.Flow{m.GetFlow()}, t.wide)
		rows.Widths = t.widths
		err := rows.Write(out, false)
		t.widths = rows.Widths
		return err
	})
}

// streamedTable is a table whose rows come one by one: its columns start as wide as what they usually hold, and grow.
type streamedTable struct {
	columns output.Columns[*nodeagentv1.Flow]
	wide    bool
	header  []string
	widths  []int
}

func flowTable(wide bool) *streamedTable {
	type flow = nodeagentv1.Flow
	t := &streamedTable{wide: wide, columns: output.Columns[*flow]{
		{Name: "TIME", Value: func(f *flow) string { return f.GetTime().AsTime().Local().Format("15:04:05.000") }},
		{Name: "APP", Value: flowApp},
		{Name: "APPID", Wide: true, Value: (*flow).GetAppId},
		{Name: "PROTO", Value: func(f *flow) string { return output.Proto(f.GetProtocol()) }},
		{Name: "DESTINATION", Value: func(f *flow) string { return output.Address(f.GetDestination()) }},
		{Name: "VERDICT", Value: decision, Tone: flowTone},
		{Name: "REASON", Value: flowReason},
		{Name: "IPV4ADDR", Value: func(f *flow) string { return output.Address(f.GetHostAddress()) }},
		{Name: "RESULT", Value: flowResult, Tone: flowTone},
		{Name: "RETRIES", Value: func(f *flow) string { return strconv.FormatUint(uint64(f.GetRetries()), 10) }},
		{Name: "LABELS", Wide: true, Value: func(f *flow) string { return ax.Labels(f.GetLabels()).String() }},
	}}
	usual := map[string]int{
		"TIME": len("15:04:05.000"), "APP": 12, "APPID": 8, "DESTINATION": len("255.255.255.255:65535"), "VERDICT": len("passthrough"),
		"REASON": len(ax.ReasonNoLabel), "IPV4ADDR": len("255.255.255.255:65535"), "RESULT": len("ECONNREFUSED"),
	}
	t.header = t.columns.Table(nil, wide).Header
	for _, name := range t.header {
		t.widths = append(t.widths, max(usual[name], len(name)))
	}
	return t
}
