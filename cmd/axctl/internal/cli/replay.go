package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/manifest"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
)

// Limits of a replay.
const (
	maxReplayed = 100_000 // flows of a file
	replayBatch = 256     // flows of a request
)

// replayFlags are the flags of `policy replay`.
type replayFlags struct {
	files, without []string
	flows          string
	format         *output.FormatFlag
}

func newPolicyReplay(flags *clientFlags) *cobra.Command {
	f := replayFlags{format: output.NewFormatFlag(output.FormatTable, output.FormatJSON)}
	cmd := &cobra.Command{
		Use:   "replay -f DRAFT",
		Short: "Show which recorded connections a draft of policies would decide otherwise",
		Long: `Decide recorded connections with the policies that there are, and once more with those of a draft, and show those that would
end otherwise. Nothing is changed. The draft is what 'ax apply' takes: each of its policies takes the place of the one of its
name, or is added; --without leaves policies out. The connections are the last 1024 of this node's applications, or those of a
file that 'ax observe -o json' wrote. Both decisions are made on the service table as it is now.

The exit status is 0 if nothing would change, 1 if something would, and 2 if that can't be found out.`,
		Example: `  ax policy replay -f draft.yaml
  ax observe --since 24h --follow=false -o json > monday.json
  ax policy replay -f draft.yaml --flows monday.json      what the draft would have changed on Monday
  ax policy replay --without no-smtp                      what would change without a policy`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return f.run(cmd, flags) },
	}
	addFileFlag(cmd, &f.files)
	fs := cmd.Flags()
	fs.StringVar(&f.flows, "flows", "", "`FILE` of connections that ax observe -o json wrote, '-' for standard input; without it, the last of this node")
	fs.StringSliceVar(&f.without, "without", nil, "comma-separated `names` of policies that the draft leaves out")
	fs.VarP(f.format, "output", "o", "`format`: "+f.format.Choices())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.format.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("without", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return policies.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func (f *replayFlags) run(cmd *cobra.Command, flags *clientFlags) error {
	draft, err := f.draft(cmd)
	if err != nil {
		return err
	}
	client, err := flags.client()
	if err != nil {
		return err
	}
	if err := f.checkWithout(cmd.Context(), client); err != nil {
		return troubleError{err}
	}
	r := replay{groups: map[string]*replayed{}}
	if f.flows != "" {
		err = r.read(cmd.InOrStdin(), f.flows)
	} else {
		query := url.Values{"pastOnly": {"true"}}
		err = followFlows(cmd.Context(), client, query, true, func(error) {}, func(_ json.RawMessage, m *nodeagentv1.WatchFlowsResponse) error {
			r.add(m.GetFlow())
			return nil
		})
	}
	if err == nil {
		err = r.decide(cmd.Context(), client, draft, f.without)
	}
	if err == nil {
		err = r.write(cmd.OutOrStdout(), f.format.Value)
	}
	if err != nil {
		return troubleError{err}
	}
	if r.changed > 0 {
		return errReported
	}
	return nil
}

// draft reads the files; they hold policies only.
func (f *replayFlags) draft(cmd *cobra.Command) ([]*typev1.Policy, error) {
	if len(f.files)+len(f.without) == 0 {
		return nil, usagef("%s what? Name a draft with -f, or policies to leave out with --without", cmd.CommandPath())
	}
	if f.flows == "-" && slices.Contains(f.files, "-") {
		return nil, usagef("-f - and --flows - both read standard input: name a file for one of them")
	}
	var all []manifest.Object
	for _, name := range f.files {
		objects, err := readManifest(cmd.InOrStdin(), name)
		if err != nil {
			return nil, troubleError{err}
		}
		all = append(all, objects...)
	}
	if err := manifest.Unique(all); err != nil {
		return nil, troubleError{err}
	}
	var out []*typev1.Policy
	for _, o := range all {
		p, ok := o.Value.(ax.Policy)
		if !ok {
			return nil, troubleError{fmt.Errorf("%s: %s is no policy: only policies are replayed", o.Where, o.Short())}
		}
		out = append(out, axpb.Policy(p))
	}
	return out, nil
}

// checkWithout refuses names that no policy has: leaving them out would change nothing, and look as if all were well.
func (f *replayFlags) checkWithout(ctx context.Context, client *api.Client) error {
	if len(f.without) == 0 {
		return nil
	}
	_, items, err := policies.load(ctx, client)
	if err != nil {
		return err
	}
	known := policies.namesOf(items)
	for _, name := range f.without {
		if slices.Contains(known, name) {
			continue
		}
		hint := didYouMean("", name, known)
		if hint == "" {
			hint = ": `ax get policies` lists them"
		}
		return fmt.Errorf("--without: no policy %q%s", name, hint)
	}
	return nil
}

// replayed is what several connections have in common, and how they are decided.
type replayed struct {
	Count       int               `json:"count"`
	App         string            `json:"app"`
	Labels      map[string]string `json:"labels"`
	Protocol    string            `json:"protocol"`
	Destination string            `json:"destination"`
	Present     replayedDecision  `json:"present"`
	Draft       replayedDecision  `json:"draft"`

	request *routerv1.RouteRequest
}

type replayedDecision struct {
	Verdict     string `json:"verdict"`
	Reason      string `json:"reason"`
	AuditPolicy string `json:"auditPolicy,omitempty"`
}

func decisionOf(r *routerv1.RouteResponse) replayedDecision {
	return replayedDecision{
		Verdict: strings.ToLower(strings.TrimPrefix(r.GetVerdict().String(), "VERDICT_")), Reason: r.GetReason(), AuditPolicy: r.GetAuditPolicy(),
	}
}

// String writes a decision as `ax observe` shows it.
func (d replayedDecision) String() string {
	if d.AuditPolicy != "" {
		return verdictAudit + " (" + ax.ReasonPolicyDeny.By(d.AuditPolicy) + ")"
	}
	return d.Verdict + " (" + d.Reason + ")"
}

// replay decides connections with a draft. Those that are alike are decided once.
type replay struct {
	groups         map[string]*replayed
	order          []*replayed
	flows, skipped int // connections; those of them that no policy can decide
	changed        int
	changes        []*replayed
}

// add takes a connection. Loopback is an application's own, whatever the policies; and of an application that was gone before
// anybody asked who it is nothing is known.
func (r *replay) add(f *nodeagentv1.Flow) {
	if f == nil {
		return
	}
	r.flows++
	if f.GetReason() == string(ax.ReasonLoopback) || len(f.GetLabels()) == 0 || f.GetDestination() == nil {
		r.skipped++
		return
	}
	labels := ax.Labels(f.GetLabels()).String()
	to := output.Address(f.GetDestination())
	key := strings.Join([]string{flowApp(f), labels, f.GetProtocol().String(), to}, "\x00")
	g := r.groups[key]
	if g == nil {
		g = &replayed{
			App: flowApp(f), Labels: f.GetLabels(), Protocol: output.Proto(f.GetProtocol()), Destination: to,
			request: &routerv1.RouteRequest{Labels: f.GetLabels(), Protocol: f.GetProtocol(), Destination: f.GetDestination()},
		}
		r.groups[key] = g
		r.order = append(r.order, g)
	}
	g.Count++
}

// read takes the connections of a file: a message of the stream to a line, as `ax observe -o json` or REST writes it.
func (r *replay) read(stdin io.Reader, name string) error {
	in := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	} else {
		name = "standard input"
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, api.MaxMessage)
	number := 0
	for lines.Scan() {
		number++
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		f, err := recordedFlow([]byte(text))
		if err != nil {
			return fmt.Errorf("%s: line %d: not a connection as `ax observe -o json` writes it", name, number)
		}
		if r.add(f); r.flows > maxReplayed {
			return fmt.Errorf("%s: more than %d connections: split it", name, maxReplayed)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: line %d: %w", name, number+1, err)
	}
	if r.flows == 0 {
		return fmt.Errorf("%s: it holds no connections: `ax observe --follow=false -o json` writes some", name)
	}
	return nil
}

// recordedFlow reads a line; the flow is nil if it only tells what was missed.
func recordedFlow(line []byte) (*nodeagentv1.Flow, error) {
	var wrapped struct {
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(line, &wrapped); err == nil && wrapped.Result != nil {
		line = wrapped.Result
	}
	var m nodeagentv1.WatchFlowsResponse
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(line, &m)
	if err == nil && m.GetFlow() == nil && m.GetMissed() == 0 {
		err = fmt.Errorf("no flow")
	}
	return m.GetFlow(), err
}

func (r *replay) decide(ctx context.Context, client *api.Client, draft []*typev1.Policy, without []string) error {
	for batch := range slices.Chunk(r.order, replayBatch) {
		req := &routerv1.ReplayPoliciesRequest{Policies: draft, RemovedPolicies: without}
		for _, g := range batch {
			req.Flows = append(req.Flows, g.request)
		}
		var reply routerv1.ReplayPoliciesResponse
		if err := client.Post(ctx, "/v1/policies:replay", req, &reply); err != nil {
			return err
		}
		if len(reply.GetFlows()) != len(batch) {
			return fmt.Errorf("%s decided %d of %d connections", client.Server(), len(reply.GetFlows()), len(batch))
		}
		for i, f := range reply.GetFlows() {
			if !f.GetChanged() {
				continue
			}
			g := batch[i]
			g.Present, g.Draft = decisionOf(f.GetPresent()), decisionOf(f.GetDraft())
			r.changed += g.Count
			r.changes = append(r.changes, g)
		}
	}
	slices.SortStableFunc(r.changes, func(a, b *replayed) int { return cmp.Compare(b.Count, a.Count) })
	return nil
}

func (r *replay) write(w io.Writer, format output.Format) error {
	if format == output.FormatJSON {
		return output.WriteData(w, format, struct {
			Flows   int         `json:"flows"`
			Skipped int         `json:"skipped"`
			Changed int         `json:"changed"`
			Changes []*replayed `json:"changes"`
		}{r.flows, r.skipped, r.changed, append([]*replayed{}, r.changes...)})
	}
	if len(r.changes) > 0 {
		columns := output.Columns[*replayed]{
			{Name: "COUNT", Value: func(g *replayed) string { return strconv.Itoa(g.Count) }},
			{Name: "APP", Value: func(g *replayed) string { return g.App }},
			{Name: "LABELS", Value: func(g *replayed) string { return ax.Labels(g.Labels).String() }},
			{Name: "PROTO", Value: func(g *replayed) string { return g.Protocol }},
			{Name: "DESTINATION", Value: func(g *replayed) string { return g.Destination }},
			{Name: "PRESENT", Value: func(g *replayed) string { return g.Present.String() }},
			{Name: "DRAFT", Value: func(g *replayed) string { return g.Draft.String() }, Tone: func(g *replayed) output.Tone {
				return output.BadIf(g.Draft.Verdict == "deny")
			}},
		}
		t := columns.Table(r.changes, false)
		if err := t.Write(w, true); err != nil {
			return err
		}
	}
	skipped := ""
	if r.skipped > 0 {
		skipped = fmt.Sprintf("; %d are none that policies decide", r.skipped)
	}
	_, err := fmt.Fprintf(w, "%d of %d connections would change%s.\n", r.changed, r.flows, skipped)
	return err
}
