package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/join"
	"appswitch.io/internal/ax"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/spf13/cobra"
)

func newExec() *cobra.Command {
	var user, runDir string
	cmd := &cobra.Command{
		Use:   "exec APP [--] COMMAND [ARGUMENTS]...",
		Short: "Run a command inside an application's namespaces, with its identity",
		Long: `Run a command inside the namespaces of an application of this machine: its network with the loopback, its files, host name
and process ids. The command runs under AppSwitch with the application's address, name and labels, so that it reaches what
the application reaches and is seen as it is. It is an application of its own in 'ax get apps'; if it listens, it serves
beside the application. Its exit status is that of the command. It needs root.`,
		Example: `  sudo ax exec web -- curl -I db
  sudo ax exec f00001bb sh
  sudo ax exec --user nobody web -- ss -tln`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 || args[1] == "--" && len(args) < 3 {
				return errors.New("want an application and a command: ax exec APP -- COMMAND")
			}
			return nil
		},
	}
	flags := addClientFlags(cmd)
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&user, "user", "", "run the command as this `user`, a name or an id")
	fs.StringVar(&runDir, "run-dir", "", "`directory` of the agent's socket (AX_RUN_DIR)")
	_ = cmd.RegisterFlagCompletionFunc("user", cobra.NoFileCompletions)
	_ = cmd.MarkFlagDirname("run-dir")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return apps.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return programs(prefix), cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := flags.client()
		if err != nil {
			return err
		}
		command := args[1:]
		if command[0] == "--" {
			command = command[1:]
		}
		app, node, err := localApp(cmd.Context(), client, args[0])
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return fmt.Errorf("the namespaces of app %s are root's to enter: sudo ax exec %s …", app.GetId(), args[0])
		}
		options := identityOptions(app, node)
		if user != "" {
			options = append(options, "--user", user)
		}
		if runDir != "" {
			options = append(options, "--run-dir", runDir)
		}
		line := append(append([]string{"run"}, options...), "--")
		code, err := join.Run(int(app.GetPid()), cmd.Root().Name(), append(line, command...))
		if err != nil {
			return fmt.Errorf("app %s: %w", app.GetId(), err)
		}
		return statusError(code)
	}
	return cmd
}

// localApp finds the one application of a name or id that runs on this machine, and its node.
func localApp(ctx context.Context, client *api.Client, name string) (*typev1.App, *typev1.Node, error) {
	_, all, err := apps.load(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	_, hosts, err := nodes.load(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	found, known := []*typev1.App(nil), []string(nil)
	for _, it := range all {
		if names := apps.names(it.msg); slices.Contains(names, name) {
			found = append(found, it.msg)
		} else {
			known = append(known, names...)
		}
	}
	switch len(found) {
	case 0:
		hint := didYouMean("", name, known)
		if hint == "" {
			hint = ": `ax get apps` lists them"
		}
		return nil, nil, fmt.Errorf("no app %q%s", name, hint)
	case 1:
	default:
		ids := make([]string, len(found))
		for i, a := range found {
			ids[i] = a.GetId()
		}
		slices.Sort(ids)
		return nil, nil, fmt.Errorf("%d apps are called %q: name one by its id, %s", len(found), name, strings.Join(ids, " or "))
	}
	app := found[0]
	i := slices.IndexFunc(hosts, func(it item[*typev1.Node]) bool { return it.msg.GetName() == app.GetNode() })
	if i < 0 || !ownAddress(hosts[i].msg.GetIp()) || client.RemoteHost() != "" {
		return nil, nil, fmt.Errorf("app %q runs on node %s, not on this machine: run ax exec there", name, app.GetNode())
	}
	return app, hosts[i].msg, nil
}

// ownAddress reports whether this machine has an address.
func ownAddress(text string) bool {
	want, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == want.Unmap()
	})
}

// identityOptions are the options of `ax run` that give a program what an application has.
func identityOptions(app *typev1.App, node *typev1.Node) []string {
	options := []string{"--new-netns=false", "--labels", ax.Labels(app.GetLabels()).String()}
	if ip := app.GetIp(); ip != "" && ip != node.GetIp() {
		options = append(options, "--ip", ip)
	}
	if name := app.GetName(); name != "" && !strings.HasPrefix(name, "<") {
		options = append(options, "--name", name)
	}
	return options
}
