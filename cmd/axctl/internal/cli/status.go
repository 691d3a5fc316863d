package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/cmd/axctl/internal/status"
	"appswitch.io/internal/config"
	"appswitch.io/internal/service"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
)

// askedPeers are the services that `status` asks over gRPC.
var askedPeers = []service.Peer{service.Registry, service.Router, service.Resolver, service.NodeAgent}

func newStatus() *cobra.Command {
	format := output.NewFormatFlag(output.FormatTable, output.FormatJSON, output.FormatYAML)
	addrs := map[service.Peer]*string{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the health of every service and of this node",
		Long: `Show the health of every service and of this node: whether each answers, whether the node has its lease and fresh routes,
and what it runs. The exit status is 1 if something is wrong.

The services are found where 'ax daemon' or the separate daemons have them by default, on the machine of --server.`,
		Example: `  ax status
  ax status -o json | jq .healthy
  until ax status >/dev/null 2>&1; do sleep 0.1; done     wait until the daemon is ready`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := addClientFlags(cmd)
	fs := cmd.Flags()
	fs.VarP(format, "output", "o", "`format`: "+format.Choices())
	for _, p := range askedPeers {
		name := string(p) + "-addr"
		addrs[p] = fs.String(name, "", fmt.Sprintf("gRPC `address` of the %s, HOST:PORT (default %s, then %s)", p, status.DaemonAddr, p.Addr()))
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// AX_OPTS is for the daemon, and so is any variable that is no flag here.
		environ := slices.DeleteFunc(withoutClientVariables(os.Environ()), func(kv string) bool { return strings.HasPrefix(kv, "AX_OPTS=") })
		if _, err := config.Load(fs, config.Options{Environ: environ, Foreign: []string{"AX_*"}}); err != nil {
			return usageError{err}
		}
		_, tls, err := flags.target()
		if err != nil {
			return err
		}
		client, err := flags.client()
		if err != nil {
			return err
		}
		o := status.Options{Host: client.RemoteHost(), Addrs: map[service.Peer]string{}, TLS: tls, Gateway: gatewayProbe(client)}
		for p, addr := range addrs {
			o.Addrs[p] = *addr
		}
		report := status.Get(cmd.Context(), o)
		if err := writeStatus(cmd.OutOrStdout(), format.Value, report); err != nil {
			return err
		}
		if !report.Healthy() {
			return errReported
		}
		return nil
	}
	return cmd
}

func writeStatus(w io.Writer, format output.Format, r status.Report) error {
	if format != output.FormatTable {
		agent := json.RawMessage("null")
		if r.Agent != nil {
			data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(r.Agent)
			if err != nil {
				return fmt.Errorf("encode the node's state: %w", err)
			}
			agent = data
		}
		return output.WriteData(w, format, map[string]any{
			"healthy": r.Healthy(), "services": r.Services, "agent": agent, "problems": append([]string{}, r.Problems...),
		})
	}
	t := output.Table{Header: []string{"", "SERVICE", "STATE"}}
	for _, s := range r.Services {
		mark, tone := "✓", output.Good
		if !s.OK {
			mark, tone = "✗", output.Bad
		}
		t.Rows, t.Tones = append(t.Rows, []string{mark, s.Name, s.Detail}), append(t.Tones, []output.Tone{tone})
	}
	if err := t.Write(w, false); err != nil {
		return err
	}
	if a := r.Agent; a != nil {
		n := a.GetNode()
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		lease := "alive"
		if !a.GetRegistryConnected() {
			lease = "lost"
		}
		if err := output.Fields(w,
			[2]string{"Node", fmt.Sprintf("%s, cluster %s, %s, driver %s, %s", n.GetName(), n.GetCluster(), n.GetIp(), n.GetDriver(), n.GetVersion())},
			[2]string{"Routes", fmt.Sprintf("revision %d, confirmed %s ago", a.GetSnapshotRevision(), a.GetSnapshotAge().AsDuration().Round(100*time.Millisecond))},
			[2]string{"Lease", lease},
			[2]string{"Pending writes", strconv.FormatUint(uint64(a.GetPendingWrites()), 10)},
		); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		if _, err := fmt.Fprintln(w, "\n"+output.Paint(w, output.Bad, "✗")+" "+p); err != nil {
			return err
		}
	}
	return nil
}
