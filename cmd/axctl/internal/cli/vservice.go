package cli

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/daemon"
	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/spf13/cobra"
)

func newCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a resource",
		Example: `  ax create vservice --ip 1.1.1.1 --backends 10.0.2.15 --ports 80:8000 myvsvc
  ax create policy only-shop-pays --action deny --from 'role!=shop' --to role=payment`,
	}
	group(cmd)
	flags := addClientFlags(cmd)
	cmd.AddCommand(newCreateVirtualService(flags), newCreatePolicy(flags))
	return cmd
}

func newDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete",
		Aliases: []string{"del"},
		Short:   "Delete a resource",
		Example: `  ax delete vservice myvsvc
  ax del vservice myvsvc another
  ax delete policy only-shop-pays`,
	}
	group(cmd)
	flags := addClientFlags(cmd)
	cmd.AddCommand(virtualServices.deletion(flags, "Service", "myvsvc"), policies.deletion(flags, "Policy", "no-test-in-prod"))
	return cmd
}

func newCreateVirtualService(flags *clientFlags) *cobra.Command {
	var v virtualServiceFlags
	cmd := &cobra.Command{
		Use:     "vservice NAME",
		Aliases: []string{"vs", "virtualservice"},
		Short:   "Create a virtual service: an address and a name in front of services",
		Long: `Create a virtual service: an address and a name that balance connections over services of the table.

Backends are given by their addresses in the table (SERVICEADDR of 'ax get servers'). Without a port, each is reached at the
ports to which --ports maps. A backend that is not there yet is accepted: the virtual service reaches it as soon as it
listens. IP:PORT is a service of the table as well or, while there is none, a server outside AppSwitch; IP:* is one outside
at the ports to which --ports maps. A weight after '=' gives a backend a larger share of the connections.

How a backend is chosen (--lbtype):
  Random      at random
  RoundRobin  in turn
  LeastConn   the one to which this node has the fewest connections
  Maglev      by the client's address, or application: the same one as long as it is there, whatever becomes of others`,
		Example: `  ax create vservice --ip 1.1.1.1 --backends 10.0.2.15 --ports 80:8000 myvsvc
  ax create vservice --backends 1.1.1.1,2.2.2.2 --lbtype RoundRobin web     an address is made up
  ax create vservice --backends 1.1.1.1=9,2.2.2.2=1 canary                  one connection in ten to 2.2.2.2
  ax create vservice --backends 1.1.1.1,2.2.2.2 --affinity 10m shop         a client keeps its server
  ax create vservice --ip 1.1.1.1 --backends 2.2.2.2 moved                  what was at 1.1.1.1 is now at 2.2.2.2
  ax create vservice --backends 192.0.2.7:5432 --ports 5432 db              a database outside AppSwitch`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := v.virtualService(args[0])
			if err != nil {
				return usageError{err}
			}
			client, err := flags.client()
			if err != nil {
				return err
			}
			var reply registryv1.CreateVirtualServiceResponse
			if err := client.Post(cmd.Context(), "/v1/vservices", axpb.VirtualService(service), &reply); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Service '%s' created successfully with IP '%s'.\n",
				reply.GetVirtualService().GetName(), reply.GetVirtualService().GetIp())
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	v.add(cmd)
	return cmd
}

// virtualServiceFlags are the flags of `create vservice`.
type virtualServiceFlags struct {
	ip, balancer, source string
	backends, ports      []string
	affinity             time.Duration
}

func (v *virtualServiceFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&v.ip, "ip", "", "virtual `address`, IPv4 or IPv6; made up if not given")
	fs.StringVar(&v.balancer, "lbtype", ax.Random.String(), "how a backend is chosen: "+strings.Join(balancerNames(), ", "))
	fs.StringSliceVar(&v.backends, "backends", nil, "comma-separated `addresses` of services, or IP:PORT and IP:* of servers outside, each with =WEIGHT if not 1")
	fs.StringSliceVar(&v.ports, "ports", nil, "comma-separated list of `vport:port`, the virtual port and that of the backends; without it, every port of the backends")
	fs.DurationVar(&v.affinity, "affinity", 0, "send a client to the same server again until this `duration` after its last connect, such as 10m")
	fs.StringVar(&v.source, "source-ip", "", "host `address` from which connections to backends are made")
	daemon.AddUnavailable(fs, "external", "expose")
	for _, name := range []string{"ip", "backends", "ports", "affinity", "source-ip"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("lbtype", cobra.FixedCompletions(balancerNames(), cobra.ShellCompDirectiveNoFileComp))
}

func balancerNames() []string {
	var names []string
	for _, b := range ax.Balancers() {
		names = append(names, b.String())
	}
	return names
}

// virtualService reads the flags; its errors name the flag.
func (v *virtualServiceFlags) virtualService(name string) (ax.VirtualService, error) {
	out := ax.VirtualService{Name: name, Affinity: v.affinity}
	var err error
	if out.Addr, err = addressFlag("ip", v.ip); err != nil {
		return out, err
	}
	if out.Source, err = addressFlag("source-ip", v.source); err != nil {
		return out, err
	}
	if out.Balancer, err = ax.ParseBalancer(v.balancer); err != nil {
		return out, fmt.Errorf("--lbtype: %w%s", err, didYouMean("", v.balancer, balancerNames()))
	}
	for _, s := range v.backends {
		b, err := ax.ParseWeightedBackend(strings.TrimSpace(s))
		if err != nil {
			return out, fmt.Errorf("--backends: %w", err)
		}
		out.Backends = append(out.Backends, b)
	}
	for _, s := range v.ports {
		m, err := ax.ParsePortMapping(s)
		if err != nil {
			return out, fmt.Errorf("--ports: %w", err)
		}
		out.Ports = append(out.Ports, m)
	}
	if err := out.Validate(); err != nil {
		return out, fmt.Errorf("--%s", strings.NewReplacer("session_affinity", "affinity", "balancer", "lbtype").Replace(err.Error()))
	}
	return out, nil
}

func addressFlag(name, value string) (netip.Addr, error) {
	if value == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("--%s %q: not an IP address", name, value)
	}
	return addr.Unmap(), nil
}
