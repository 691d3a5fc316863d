package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/ax"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// flow is the connection to explain, as the flags describe it.
type flow struct {
	app, to, protocol string
	labels            []string
}

func newExplain() *cobra.Command {
	format := output.NewFormatFlag(output.FormatTable, output.FormatJSON, output.FormatYAML)
	var f flow
	cmd := &cobra.Command{
		Use:   "explain --to DESTINATION [--from APP | --labels k=v,...]",
		Short: "Explain why a connection is allowed, refused, or routed as it is",
		Long: `Explain what happens when a client connects to a destination: the decision, what the client gets, the routes that it is
decided on with their age, and for every server that was looked at why it may be chosen or not. The client is a running application, or any that carries the given labels.`,
		Example: `  ax explain --from web --to 1.1.1.1:6379      from an application, by its name or id
  ax explain --labels role=test --to web:80    from a client with these labels
  ax explain --to 1.1.1.1:80                   from a client with the default labels`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query, err := f.query()
		if err != nil {
			return usageError{err}
		}
		client, err := flags.client()
		if err != nil {
			return err
		}
		var reply routerv1.ExplainResponse
		body, err := client.Get(cmd.Context(), "/v1/explain", query, &reply)
		if err != nil {
			return f.suggest(cmd.Context(), flags, err)
		}
		if format.Value != output.FormatTable {
			return output.WriteJSON(cmd.OutOrStdout(), format.Value, body)
		}
		return writeExplanation(cmd.OutOrStdout(), &reply)
	}
	fs := cmd.Flags()
	fs.StringVar(&f.app, "from", "", "client, by the name or id of an `app`")
	fs.StringSliceVar(&f.labels, "labels", nil, "labels of the client, comma-separated `k=v`; zone=default if there are none")
	fs.StringVar(&f.to, "to", "", "`destination`, ADDRESS:PORT or NAME:PORT")
	fs.StringVar(&f.protocol, "proto", ax.TCP.String(), "transport `protocol`: tcp or udp")
	fs.VarP(format, "output", "o", "`format`: "+format.Choices())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("from", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return apps.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("labels", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("to", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return destinationNames(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
	return cmd
}

// suggest adds the nearest name to an error that says that there is none such.
func (f *flow) suggest(ctx context.Context, flags *clientFlags, err error) error {
	var refused *api.StatusError
	if !errors.As(err, &refused) || refused.Code != codes.NotFound {
		return err
	}
	hint := ""
	if f.app != "" {
		hint = didYouMean("", f.app, apps.complete(ctx, flags))
	}
	if host, _, splitErr := net.SplitHostPort(f.to); hint == "" && splitErr == nil {
		hint = didYouMean("", host, destinationNames(ctx, flags))
	}
	return fmt.Errorf("%w%s", err, hint)
}

// query checks the flags and writes them as the request's parameters.
func (f flow) query() (url.Values, error) {
	if f.app != "" && len(f.labels) > 0 {
		return nil, errors.New("--from and --labels both say who connects: leave one of them out")
	}
	proto, err := ax.ParseProtocol(f.protocol)
	if err != nil {
		return nil, fmt.Errorf("--proto: %w", err)
	}
	host, port, err := net.SplitHostPort(f.to)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("--to %q: want ADDRESS:PORT or NAME:PORT, such as web:80 or [2001:db8::1]:80", f.to)
	}
	query := url.Values{"destination": {f.to}, "protocol": {proto.String()}}
	if f.app != "" {
		query.Set("app", f.app)
	}
	if len(f.labels) > 0 {
		labels, err := ax.ParseLabels(strings.Join(f.labels, ","))
		if err != nil {
			return nil, fmt.Errorf("--labels: %w", err)
		}
		query["labels"] = strings.Split(labels.String(), ",")
	}
	return query, nil
}

func writeExplanation(w io.Writer, reply *routerv1.ExplainResponse) error {
	candidates := slices.Clone(reply.GetCandidates())
	slices.SortStableFunc(candidates, func(a, b *routerv1.Candidate) int {
		if a.GetEligible() != b.GetEligible() {
			if a.GetEligible() {
				return -1
			}
			return 1
		}
		return servers.compare(a.GetEndpoint(), b.GetEndpoint())
	})
	decision := strings.ToLower(strings.TrimPrefix(reply.GetVerdict().String(), "VERDICT_"))
	fields := [][2]string{
		{"Destination", output.Address(reply.GetDestination())},
		{"Decision", fmt.Sprintf("%s (%s)", decision, reply.GetReason())},
		{"Client gets", outcome(reply)},
		{"Revision", revision(reply)},
	}
	if audit := reply.GetAuditPolicy(); audit != "" {
		fields = slices.Insert(fields, 2, [2]string{"Audit", "policy " + audit + " would refuse it"})
	}
	if err := output.Fields(w, fields...); err != nil {
		return err
	}
	if len(candidates) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := output.Candidates().Table(candidates, false)
	return t.Write(w, true)
}

// revision names the routes that were decided on, and their age if the router tells it.
func revision(reply *routerv1.ExplainResponse) string {
	text := strconv.FormatInt(reply.GetRevision(), 10)
	if reply.GetAge() == nil {
		return text
	}
	return fmt.Sprintf("%s, confirmed %s ago", text, reply.GetAge().AsDuration().Round(100*time.Millisecond))
}

func outcome(reply *routerv1.ExplainResponse) string {
	switch {
	case reply.GetErrno() != "":
		return reply.GetErrno()
	case reply.GetReason() == string(ax.ReasonLoopback):
		return "whatever serves this port on its own loopback, or a refusal"
	case reply.GetVerdict() == routerv1.Verdict_VERDICT_PASSTHROUGH:
		return "a connection to the destination itself, made from the host"
	case reply.GetVerdict() == routerv1.Verdict_VERDICT_ALLOW:
		return "a connection to one of the servers that may be chosen"
	}
	return "a refusal"
}
