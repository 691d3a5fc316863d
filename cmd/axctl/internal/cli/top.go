package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/cmd/axctl/internal/tally"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"github.com/spf13/cobra"
)

// Bounds of --interval.
const (
	shortestInterval = 100 * time.Millisecond
	longestInterval  = time.Hour
)

// topFlags are the flags of `top`.
type topFlags struct {
	flowFlags
	services bool // rather than applications
	interval time.Duration
	once     bool
	rows     int
	format   *output.FormatFlag
}

func newTop() *cobra.Command {
	f := topFlags{format: output.NewFormatFlag(output.FormatTable, output.FormatJSON)}
	cmd := &cobra.Command{
		Use:   "top [apps|services]",
		Short: "Show which applications connect most, or which services are connected to most",
		Long: `Show which applications of this node connect most, or which services they connect to most: connects per second, and how
many were allowed, denied, passed through to the outside, failed and were retried. It is counted anew in every interval,
until Ctrl-C; on a terminal the table stays in its place.`,
		Example: `  ax top
  ax top services --interval 5s
  ax top --once -o json | jq '.rows[] | select(.denied > 0)'`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), onlyValid),
		ValidArgs: []string{"apps", "services"},
	}
	flags := addClientFlags(cmd)
	f.add(cmd, flags)
	fs := cmd.Flags()
	fs.DurationVar(&f.interval, "interval", 2*time.Second, "`duration` of an interval")
	fs.BoolVar(&f.once, "once", false, "end after one interval")
	fs.IntVarP(&f.rows, "rows", "n", 20, "show at most so many `rows`; 0 shows all")
	fs.VarP(f.format, "output", "o", "`format`: "+f.format.Choices())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.format.Names(), cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"interval", "rows"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.services = len(args) > 0 && args[0] == "services"
		return f.run(cmd, flags)
	}
	return cmd
}

// onlyValid refuses arguments that are not among the command's ValidArgs, and names the nearest.
func onlyValid(cmd *cobra.Command, args []string) error {
	for _, arg := range args {
		known := false
		for _, v := range cmd.ValidArgs {
			known = known || v == arg
		}
		if !known {
			return fmt.Errorf("%s %q%s", cmd.CommandPath(), arg, orOneOf(didYouMean("", arg, cmd.ValidArgs), cmd.ValidArgs))
		}
	}
	return nil
}

func (f *topFlags) run(cmd *cobra.Command, flags *clientFlags) error {
	if f.interval < shortestInterval || f.interval > longestInterval {
		return usagef("--interval %s: want %s to %s", f.interval, shortestInterval, longestInterval)
	}
	if f.rows < 0 {
		return usagef("--rows %d: want 0 or more", f.rows)
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
	// The stream says nothing until there is a flow: a daemon that is not there shall be known at once.
	if _, _, err := nodes.load(ctx, client); err != nil {
		return err
	}
	var mu sync.Mutex // guards counts
	counts := tally.New(f.key)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { // ends with ctx
		done <- followFlows(ctx, client, query, false, func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "ax: %v; waiting for it\n", err) },
			func(_ json.RawMessage, m *nodeagentv1.WatchFlowsResponse) error {
				mu.Lock()
				defer mu.Unlock()
				counts.Add(m)
				return nil
			})
	}()
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case err := <-done:
			return err
		case now := <-tick.C:
			mu.Lock()
			rows, missed := counts.Take(now.Sub(last))
			mu.Unlock()
			r := topReport{Time: now.UTC(), Seconds: now.Sub(last).Seconds(), Missed: missed, Rows: rows}
			last = now
			if err := f.write(cmd.OutOrStdout(), r); err != nil || f.once {
				cancel()
				return errors.Join(err, <-done)
			}
		}
	}
}

// key tells flows apart by who connects or by where to.
func (f *topFlags) key(flow *nodeagentv1.Flow) (key, name string) {
	if f.services {
		return output.Proto(flow.GetProtocol()) + "://" + output.Address(flow.GetDestination()), ""
	}
	return flow.GetAppId(), flow.GetAppName()
}

// topReport is one interval, as -o json writes it.
type topReport struct {
	Time    time.Time   `json:"time"`
	Seconds float64     `json:"seconds"`
	Missed  uint64      `json:"missed"` // connects that are in no row
	Rows    []tally.Row `json:"rows"`
}

// home moves a terminal's cursor to the top and clears what is below.
const home = "\x1b[H\x1b[J"

func (f *topFlags) write(w io.Writer, r topReport) error {
	all := len(r.Rows)
	if f.rows > 0 && all > f.rows {
		r.Rows = r.Rows[:f.rows]
	}
	if f.format.Value == output.FormatJSON {
		if r.Rows == nil {
			r.Rows = []tally.Row{}
		}
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode the result: %w", err)
		}
		return output.WriteLine(w, data)
	}
	if output.IsTerminal(w) && !f.once {
		if _, err := io.WriteString(w, home); err != nil {
			return err
		}
	}
	t := f.columns().Table(r.Rows, false)
	if err := t.Write(w, true); err != nil {
		return err
	}
	if len(r.Rows) < all {
		if _, err := fmt.Fprintf(w, "and %d more: --rows shows them\n", all-len(r.Rows)); err != nil {
			return err
		}
	}
	if r.Missed > 0 {
		if _, err := fmt.Fprintf(w, "%d connects were not counted: they come faster than they can be read\n", r.Missed); err != nil {
			return err
		}
	}
	if f.once || output.IsTerminal(w) {
		return nil
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (f *topFlags) columns() output.Columns[tally.Row] {
	count := func(get func(tally.Row) uint64) func(tally.Row) string {
		return func(r tally.Row) string { return strconv.FormatUint(get(r), 10) }
	}
	columns := output.Columns[tally.Row]{{Name: "SERVICE", Value: func(r tally.Row) string { return r.Key }}}
	if !f.services {
		columns = output.Columns[tally.Row]{
			{Name: "NAME", Value: func(r tally.Row) string { return r.Name }},
			{Name: "APPID", Value: func(r tally.Row) string { return r.Key }},
		}
	}
	return append(columns,
		output.Column[tally.Row]{Name: "CONNECTS/S", Value: func(r tally.Row) string { return strconv.FormatFloat(r.Rate, 'f', 1, 64) }},
		output.Column[tally.Row]{Name: "ALLOWED", Value: count(func(r tally.Row) uint64 { return r.Allowed })},
		output.Column[tally.Row]{Name: "DENIED", Value: count(func(r tally.Row) uint64 { return r.Denied }), Tone: func(r tally.Row) output.Tone { return output.BadIf(r.Denied > 0) }},
		output.Column[tally.Row]{Name: "PASSTHROUGH", Value: count(func(r tally.Row) uint64 { return r.Passed })},
		output.Column[tally.Row]{Name: "FAILED", Value: count(func(r tally.Row) uint64 { return r.Failed }), Tone: func(r tally.Row) output.Tone { return output.BadIf(r.Failed > 0) }},
		output.Column[tally.Row]{Name: "RETRIED", Value: count(func(r tally.Row) uint64 { return r.Retried })},
	)
}
