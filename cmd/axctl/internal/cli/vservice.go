package cli

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"appswitch.io/cmd/axctl/internal/daemon"
	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/spf13/cobra"
)

func newCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Create a resource",
		Example: `  ax create vservice --ip 1.1.1.1 --backends 10.0.2.15 --ports 80:8000 myvsvc`,
	}
	group(cmd)
	cmd.AddCommand(newCreateVirtualService(addClientFlags(cmd)))
	return cmd
}

func newDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete",
		Aliases: []string{"del"},
		Short:   "Delete a resource",
		Example: `  ax delete vservice myvsvc
  ax del vservice myvsvc another`,
	}
	group(cmd)
	cmd.AddCommand(newDeleteVirtualService(addClientFlags(cmd)))
	return cmd
}

func newCreateVirtualService(flags *clientFlags) *cobra.Command {
	var v virtualServiceFlags
	cmd := &cobra.Command{
		Use:     "vservice NAME",
		Aliases: []string{"vs", "virtualservice"},
		Short:   "Create a virtual service: an address and a name in front of services",
		Long: `Create a virtual service: an address and a name that balance connections over services of the table.

Backends are given by their addresses in the table (SERVICEADDR of 'ax get servers'), without ports. A backend that is not
there yet is accepted: the virtual service reaches it as soon as it listens.`,
		Example: `  ax create vservice --ip 1.1.1.1 --backends 10.0.2.15 --ports 80:8000 myvsvc
  ax create vservice --backends 1.1.1.1,2.2.2.2 --lbtype RoundRobin web     an address is made up`,
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

func newDeleteVirtualService(flags *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "vservice NAME...",
		Aliases: []string{"vs", "virtualservice"},
		Short:   "Delete virtual services",
		Example: `  ax delete vservice myvsvc`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := flags.client()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := client.Delete(cmd.Context(), "/v1/vservices/"+url.PathEscape(name), nil); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "Service '%s' deleted successfully.\n", name); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return virtualServices.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// virtualServiceFlags are the flags of `create vservice`.
type virtualServiceFlags struct {
	ip, balancer    string
	backends, ports []string
}

func (v *virtualServiceFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&v.ip, "ip", "", "virtual `address`; made up if not given")
	fs.StringVar(&v.balancer, "lbtype", ax.Random.String(), "how a backend is chosen: Random or RoundRobin")
	fs.StringSliceVar(&v.backends, "backends", nil, "comma-separated `addresses` of services")
	fs.StringSliceVar(&v.ports, "ports", nil, "comma-separated list of `vport:port`, the virtual port and that of the backends; without it, every port of the backends")
	daemon.AddUnavailable(fs, "external", "expose", "source-ip")
	for _, name := range []string{"ip", "backends", "ports"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	balancers := []string{ax.Random.String(), ax.RoundRobin.String()}
	_ = cmd.RegisterFlagCompletionFunc("lbtype", cobra.FixedCompletions(balancers, cobra.ShellCompDirectiveNoFileComp))
}

// virtualService reads the flags; its errors name the flag.
func (v *virtualServiceFlags) virtualService(name string) (ax.VirtualService, error) {
	out := ax.VirtualService{Name: name}
	if v.ip != "" {
		addr, err := netip.ParseAddr(v.ip)
		if err != nil || addr.Zone() != "" {
			return out, fmt.Errorf("--ip %q: not an IP address", v.ip)
		}
		out.Addr = addr.Unmap()
	}
	switch {
	case strings.EqualFold(v.balancer, ax.Random.String()):
		out.Balancer = ax.Random
	case strings.EqualFold(v.balancer, ax.RoundRobin.String()):
		out.Balancer = ax.RoundRobin
	default:
		return out, fmt.Errorf("--lbtype %q: want %s or %s", v.balancer, ax.Random, ax.RoundRobin)
	}
	for _, s := range v.backends {
		addr, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil || addr.Zone() != "" {
			return out, fmt.Errorf("--backends %q: want the IP address of a service in the table, without a port; --ports maps ports", s)
		}
		out.Backends = append(out.Backends, addr.Unmap())
	}
	for _, s := range v.ports {
		virtual, backend, two := strings.Cut(strings.TrimSpace(s), ":")
		if !two {
			backend = virtual
		}
		vp, err1 := strconv.ParseUint(virtual, 10, 16)
		bp, err2 := strconv.ParseUint(backend, 10, 16)
		if err1 != nil || err2 != nil || vp == 0 || bp == 0 {
			return out, fmt.Errorf("--ports %q: want vport:port, such as 80:8000, of numbers from 1 to 65535", s)
		}
		out.Ports = append(out.Ports, ax.PortMapping{Virtual: uint16(vp), Backend: uint16(bp)})
	}
	return out, nil
}
