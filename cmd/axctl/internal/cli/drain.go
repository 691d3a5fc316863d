package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/output"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/spf13/cobra"
)

const (
	drainPath  = "/v1/drains"
	drainEvery = 200 * time.Millisecond // between looks at what is left
	// drainQuiet is how often in a row nothing must be left: the routes of other nodes are a moment late, and a connection
	// may be on its way.
	drainQuiet = 3
)

// drainFlags are those of the subcommands of `drain`.
type drainFlags struct {
	undo, wait bool
	limit      time.Duration
}

func newDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Keep new connections from an application or a node, and let those that are there end",
		Long: `Drain an application, or all of a node: from now on no new connection goes to its services, wherever the client is. Where
another server is there, it takes them; where none is, clients are refused. Connections that are established are not touched.
What is drained stays so until --undo, or until it ends.

Applications are drained by the daemon of their own node: name it with --server or --context if it is not this one.`,
		Example: `  ax drain app web                          by name: all of this node with that name
  ax drain app f00001bb --wait              until its last connection has ended
  ax drain app web --wait --limit 30s       but not longer
  ax drain app web --undo
  ax drain node node1 --wait                before the node goes down for maintenance`,
	}
	group(cmd)
	flags := addClientFlags(cmd)
	cmd.AddCommand(newDrainApp(flags), newDrainNode(flags))
	return cmd
}

func (f *drainFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.undo, "undo", false, "let new connections in again")
	fs.BoolVarP(&f.wait, "wait", "w", false, "wait until the last connection has ended, and show how many are left")
	fs.DurationVar(&f.limit, "limit", 0, "wait at most this `duration`; it is a failure if connections are left then")
	_ = cmd.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions)
}

func (f *drainFlags) check() error {
	switch {
	case f.undo && f.wait:
		return usagef("--undo and --wait: there is nothing to wait for: leave one of them out")
	case f.limit != 0 && !f.wait:
		return usagef("--limit %s: bounds --wait, which is not given", f.limit)
	case f.limit < 0:
		return usagef("--limit %s: want more than 0", f.limit)
	}
	return nil
}

func newDrainApp(flags *clientFlags) *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "app ID|NAME",
		Short: "Drain an application of the daemon's node",
		Example: `  ax drain app web --wait
  ax drain app web --undo`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			client, err := flags.client()
			if err != nil {
				return err
			}
			chosen, err := drainable(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			var ids []string
			for _, app := range chosen {
				ids = append(ids, app.GetId())
				if err := f.set(cmd, client, drainPath+"/"+url.PathEscape(app.GetId()), "Application '"+app.GetName()+"' ("+app.GetId()+")"); err != nil {
					return err
				}
			}
			return f.await(cmd, client, ids)
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return apps.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f.add(cmd)
	return cmd
}

func newDrainNode(flags *clientFlags) *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "node NAME",
		Short: "Drain all applications of the daemon's node, and those that start there",
		Example: `  ax drain node node1 --wait
  ax drain node node1 --undo`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			client, err := flags.client()
			if err != nil {
				return err
			}
			var now nodeagentv1.ListDrainsResponse
			if _, err := client.Get(cmd.Context(), drainPath, nil, &now); err != nil {
				return err
			}
			if now.GetNode() != args[0] {
				return fmt.Errorf("node %q is not that of the daemon at %s, which is %q: name its daemon with --server or --context", args[0], client.Server(), now.GetNode())
			}
			if err := f.set(cmd, client, drainPath, "Node '"+args[0]+"'"); err != nil {
				return err
			}
			return f.await(cmd, client, nil)
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return nodes.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f.add(cmd)
	return cmd
}

// drainable finds the applications of the daemon's node that have an id or a name.
func drainable(ctx context.Context, client *api.Client, arg string) ([]*typev1.App, error) {
	var all registryv1.ListAppsResponse
	var here nodeagentv1.ListDrainsResponse
	if _, err := client.Get(ctx, "/v1/apps", nil, &all); err != nil {
		return nil, err
	}
	if _, err := client.Get(ctx, drainPath, nil, &here); err != nil {
		return nil, err
	}
	var found []*typev1.App
	var names []string
	elsewhere := ""
	for _, app := range all.GetApps() {
		names = append(names, app.GetId(), app.GetName())
		switch {
		case app.GetId() != arg && app.GetName() != arg:
		case app.GetNode() != here.GetNode():
			elsewhere = app.GetNode()
		default:
			found = append(found, app)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case elsewhere != "":
		return nil, fmt.Errorf("application %q runs on node %q, and the daemon at %s is that of %q: name its daemon with --server or --context", arg, elsewhere, client.Server(), here.GetNode())
	}
	hint := didYouMean("", arg, slices.Compact(slices.Sorted(slices.Values(names))))
	if hint == "" {
		hint = ": `ax get apps` lists them"
	}
	return nil, fmt.Errorf("no application %q%s", arg, hint)
}

// set starts or ends a drain, and says so.
func (f *drainFlags) set(cmd *cobra.Command, client *api.Client, path, what string) error {
	text := "%s is being drained.\n"
	var err error
	if f.undo {
		text = "%s takes new connections.\n"
		err = client.Delete(cmd.Context(), path, nil)
	} else {
		err = client.Put(cmd.Context(), path, nil, &nodeagentv1.DrainRequest{}, nil)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), text, output.Sanitize(what))
	return err
}

// await waits until the applications, or all of the node if there are none, have no connections left. What is left is
// shown when it changes.
func (f *drainFlags) await(cmd *cobra.Command, client *api.Client, ids []string) error {
	if !f.wait {
		return nil
	}
	ctx, stop := untilInterrupt(cmd.Context())
	defer stop()
	if f.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.limit)
		defer cancel()
	}
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	left, shown, quiet := uint32(0), int64(-1), 0
	for quiet < drainQuiet {
		var now nodeagentv1.ListDrainsResponse
		if _, err := client.Get(ctx, drainPath, nil, &now); err != nil && ctx.Err() == nil {
			return err
		} else if err == nil {
			left = connections(&now, ids)
			if quiet++; left > 0 {
				quiet = 0
			}
			if int64(left) != shown {
				shown = int64(left)
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "Connections left: %d\n", left); err != nil {
					return err
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if quiet >= drainQuiet {
				return nil
			}
			return fmt.Errorf("connections are left: %d; the drain goes on, `ax drain … --undo` ends it", left)
		}
	}
	return nil
}

// connections counts what draining applications have left.
func connections(now *nodeagentv1.ListDrainsResponse, ids []string) (n uint32) {
	for _, d := range now.GetDrains() {
		if ids == nil || slices.Contains(ids, d.GetAppId()) {
			n += d.GetConnections()
		}
	}
	return n
}
