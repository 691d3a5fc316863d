package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/ax"
	"appswitch.io/internal/selector"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
)

// flowFlags select flows.
type flowFlags struct {
	app      string
	to       []string
	verdicts []string
	retried  bool
	selector selector.Selector
}

// verdictNames are what --verdict takes, and what the contract calls it.
var verdictNames = map[string]string{"allow": "VERDICT_ALLOW", "deny": "VERDICT_DENY", "passthrough": "VERDICT_PASSTHROUGH"}

// verdictAudit is what --verdict takes beside them: carried out, though a policy in audit mode would refuse it.
const verdictAudit = "audit"

// maxDestinations is how many a request may name.
const maxDestinations = 64

func (f *flowFlags) add(cmd *cobra.Command, flags *clientFlags) {
	fs := cmd.Flags()
	fs.StringVar(&f.app, "app", "", "only connects of an `app`, by its name or id")
	fs.StringSliceVar(&f.to, "to", nil, "only connects to a `destination`: ADDRESS, ADDRESS:PORT, :PORT, NAME or NAME:PORT; several by comma")
	fs.StringSliceVar(&f.verdicts, "verdict", nil, "only those with a `verdict`: allow, deny, passthrough, audit; several by comma")
	fs.BoolVar(&f.retried, "retried", false, "only those that met a server that refused, and were retried")
	fs.VarP(&f.selector, "selector", "l", "only those of apps whose labels match: k=v, k!=v, k, !k, several by comma")
	_ = cmd.RegisterFlagCompletionFunc("app", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return apps.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("to", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return destinationNames(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions([]string{"allow", "deny", "passthrough", verdictAudit}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("selector", cobra.NoFileCompletions)
}

// query writes the flags as a request's parameters. Names of destinations are looked up with lookup.
func (f *flowFlags) query(lookup func(name string) ([]string, error)) (url.Values, error) {
	query := url.Values{}
	if f.app != "" {
		query.Set("app", f.app)
	}
	for _, v := range f.verdicts {
		v := strings.ToLower(strings.TrimSpace(v))
		if v == verdictAudit {
			query.Set("audited", "true")
			continue
		}
		name, ok := verdictNames[v]
		if !ok {
			return nil, usagef("--verdict %q: want allow, deny, passthrough or audit", v)
		}
		query.Add("verdicts", name)
	}
	if f.retried {
		query.Set("retried", "true")
	}
	if !f.selector.Empty() {
		query.Set("selector", f.selector.String())
	}
	for _, text := range f.to {
		found, err := flowDestinations(strings.TrimSpace(text), lookup)
		if err != nil {
			return nil, err
		}
		query["to"] = append(query["to"], found...)
	}
	if n := len(query["to"]); n > maxDestinations {
		return nil, usagef("--to: %d destinations: at most %d", n, maxDestinations)
	}
	return query, nil
}

// flowDestinations reads a value of --to.
func flowDestinations(text string, lookup func(string) ([]string, error)) ([]string, error) {
	bad := usagef("--to %q: want ADDRESS, ADDRESS:PORT, :PORT, NAME or NAME:PORT, such as 1.1.1.1:80 or web", text)
	if _, err := netip.ParseAddr(text); err == nil {
		return []string{text}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, ""
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, bad
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" && port != "" {
		return []string{text}, nil
	}
	if host == "" || strings.ContainsAny(host, ":/ ") {
		return nil, bad
	}
	addrs, err := lookup(host)
	if err != nil {
		return nil, err
	}
	if port != "" {
		for i, a := range addrs {
			addrs[i] = net.JoinHostPort(a, port)
		}
	}
	return addrs, nil
}

// lookupName finds the addresses of a name in the service table.
func lookupName(ctx context.Context, client *api.Client) func(name string) ([]string, error) {
	return func(name string) ([]string, error) {
		names, err := tableNames(ctx, client)
		if err != nil {
			return nil, err
		}
		if addrs := names[strings.ToLower(name)]; len(addrs) > 0 {
			return addrs, nil
		}
		known := make([]string, 0, len(names))
		for n := range names {
			known = append(known, n)
		}
		hint := didYouMean("", name, known)
		if hint == "" {
			hint = ": give its address; `ax get apps` and `ax get vservices` list names"
		}
		return nil, fmt.Errorf("--to: the service table has no name %q%s", name, hint)
	}
}

// tableNames returns the names of applications and virtual services with their addresses, sorted.
func tableNames(ctx context.Context, client *api.Client) (map[string][]string, error) {
	names := map[string][]string{}
	_, running, err := apps.load(ctx, client)
	if err != nil {
		return nil, err
	}
	_, services, err := virtualServices.load(ctx, client)
	if err != nil {
		return nil, err
	}
	put := func(name, ip string) {
		if name = strings.ToLower(name); !strings.HasPrefix(name, "<") && ip != "" && !slices.Contains(names[name], ip) {
			names[name] = append(names[name], ip)
		}
	}
	for _, a := range running {
		put(a.msg.GetName(), a.msg.GetIp())
	}
	for _, v := range services {
		put(v.msg.GetName(), v.msg.GetIp())
	}
	for _, addrs := range names {
		slices.Sort(addrs)
	}
	return names, nil
}

// destinationNames are the names that a destination may have, for the shell; a daemon that is not there has none.
func destinationNames(ctx context.Context, flags *clientFlags) []string {
	client, err := flags.client()
	if err != nil {
		return nil
	}
	names, err := tableNames(ctx, client)
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// reconnectEvery is the pause before a stream that broke is opened again.
const reconnectEvery = 500 * time.Millisecond

// followFlows calls each with every flow, until ctx ends, which is no error, or the daemon has no more when once is set.
// A daemon that goes away later is waited for, as say tells; what it decided meanwhile is lost.
func followFlows(ctx context.Context, client *api.Client, query url.Values, once bool, say func(error), each func(json.RawMessage, *nodeagentv1.WatchFlowsResponse) error) error {
	var broken error // an error of each, which ends everything
	received, away := false, false
	for {
		err := client.Stream(ctx, "/v1/flows", query, func(raw json.RawMessage) error {
			received, away = true, false
			var m nodeagentv1.WatchFlowsResponse
			if broken = (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &m); broken != nil {
				broken = fmt.Errorf("decode /v1/flows of %s: %w", client.Server(), broken)
				return broken
			}
			broken = each(raw, &m)
			return broken
		})
		var refused *api.StatusError
		switch {
		case ctx.Err() != nil || once && errors.Is(err, api.ErrStreamEnded):
			return nil //nolint:nilerr // that is how it is to end
		case broken != nil:
			return broken
		case once || errors.As(err, &refused) || !received && !errors.Is(err, api.ErrStreamEnded):
			return err
		}
		if !away {
			say(err)
		}
		away = true
		query.Del("last")
		query.Del("since")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnectEvery):
		}
	}
}

// decision writes a verdict as its flag takes it.
func decision(f *nodeagentv1.Flow) string {
	if f.GetAuditPolicy() != "" {
		return verdictAudit
	}
	return strings.ToLower(strings.TrimPrefix(f.GetVerdict().String(), "VERDICT_"))
}

// flowApp names whose flow it is: by the application's name if it has one.
func flowApp(f *nodeagentv1.Flow) string {
	if name := f.GetAppName(); name != "" && !strings.HasPrefix(name, "<") {
		return name
	}
	return f.GetAppId()
}

// flowReason writes why; of what a policy in audit mode would refuse, why it would.
func flowReason(f *nodeagentv1.Flow) string {
	if f.GetAuditPolicy() != "" {
		return ax.ReasonPolicyDeny.By(f.GetAuditPolicy())
	}
	return f.GetReason()
}

// flowResult is what the application was told.
func flowResult(f *nodeagentv1.Flow) string {
	if f.GetErrno() == "" {
		return "ok"
	}
	return f.GetErrno()
}

func flowTone(f *nodeagentv1.Flow) output.Tone {
	switch {
	case decision(f) == "deny":
		return output.Bad
	case decision(f) == verdictAudit || f.GetRetries() > 0 || f.GetErrno() != "" && f.GetErrno() != "EINPROGRESS":
		return output.Doubtful
	case decision(f) == "allow":
		return output.Good
	}
	return output.Plain
}
