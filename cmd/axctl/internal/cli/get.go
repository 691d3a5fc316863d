package cli

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/ax"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/spf13/cobra"
)

func newGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get",
		Short: "List applications, servers, sockets, virtual services, policies, nodes and proxies",
		Example: `  ax get apps
  ax get servers -o wide
  ax get apps -l role=prod -w
  ax get vservice myvsvc -o yaml
  ax get sockets -o json | jq '.sockets[].bindAddress'`,
	}
	group(cmd)
	flags := addClientFlags(cmd)
	cmd.AddCommand(
		apps.command(flags), servers.command(flags), sockets.command(flags),
		virtualServices.command(flags), nodes.command(flags), proxies.command(flags), policies.command(flags),
	)
	return cmd
}

var apps = resource[*typev1.App]{
	plural: "apps", singular: "app", aliases: []string{"applications", "application"},
	short: "List the applications that run under AppSwitch, in the whole cluster",
	example: `  ax get apps
  ax get app web
  ax get apps -l role=prod,tier!=front    those with these labels
  ax get apps -o wide                     with process ids, ages and commands
  ax get apps -o name                     their ids only
  ax get apps -w                          and what comes, changes and goes, until Ctrl-C`,
	path: "/v1/apps", field: "apps", kind: registryv1.Kind_KIND_APP, record: "app",
	columns: output.Apps,
	names:   func(a *typev1.App) []string { return []string{a.GetId(), a.GetName()} },
	labels:  (*typev1.App).GetLabels,
	compare: func(a, b *typev1.App) int {
		return cmp.Or(cmp.Compare(a.GetNode(), b.GetNode()), cmp.Compare(a.GetId(), b.GetId()))
	},
}

var servers = resource[*typev1.Endpoint]{
	plural: "servers", singular: "server", aliases: []string{"services", "service", "endpoints", "endpoint"},
	short: "List the services that applications listen with, in the whole cluster",
	example: `  ax get servers
  ax get server 1.1.1.1:80     those that serve an address
  ax get servers -l role       those that have a label role, whatever its value
  ax get servers -o wide       with names, labels and health
  ax get servers -w -o json    an object for each change, one to a line`,
	path: "/v1/servers", field: "endpoints", kind: registryv1.Kind_KIND_ENDPOINT, record: "endpoint",
	columns: output.Servers,
	names: func(e *typev1.Endpoint) []string {
		return []string{e.GetId(), output.Address(e.GetServiceAddress()), e.GetAppId(), e.GetName()}
	},
	labels: (*typev1.Endpoint).GetLabels,
	compare: func(a, b *typev1.Endpoint) int {
		return cmp.Or(
			compareAddress(a.GetServiceAddress(), b.GetServiceAddress()),
			cmp.Compare(a.GetNode(), b.GetNode()), cmp.Compare(a.GetId(), b.GetId()),
		)
	},
}

var sockets = resource[*nodeagentv1.Socket]{
	plural: "sockets", singular: "socket",
	short: "List the sockets that applications of this node hold",
	example: `  ax get sockets
  ax get socket f00001bb      those of one application
  ax get sockets -o wide      with their peers and real addresses`,
	path: "/v1/sockets", field: "sockets",
	columns: func(time.Time) output.Columns[*nodeagentv1.Socket] { return output.Sockets() },
	names:   func(s *nodeagentv1.Socket) []string { return []string{s.GetId(), s.GetAppId()} },
	compare: func(a, b *nodeagentv1.Socket) int {
		return cmp.Or(
			cmp.Compare(a.GetNode(), b.GetNode()), cmp.Compare(a.GetAppId(), b.GetAppId()), cmp.Compare(a.GetInode(), b.GetInode()),
		)
	},
}

var nodes = resource[*typev1.Node]{
	plural: "nodes", singular: "node",
	short: "List the nodes of the cluster",
	example: `  ax get nodes
  ax get nodes -o yaml`,
	path: "/v1/nodes", field: "nodes", kind: registryv1.Kind_KIND_NODE, record: "node",
	columns: output.Nodes,
	names:   func(n *typev1.Node) []string { return []string{n.GetName(), n.GetIp()} },
	compare: func(a, b *typev1.Node) int { return cmp.Compare(a.GetName(), b.GetName()) },
}

var proxies = resource[*gatewayv1.Proxy]{
	plural: "proxies", singular: "proxy",
	short:   "List the listeners of this node that relay connections",
	example: `  ax get proxies`,
	path:    "/v1/proxies", field: "proxies",
	columns: func(time.Time) output.Columns[*gatewayv1.Proxy] { return output.Proxies() },
	names:   func(p *gatewayv1.Proxy) []string { return []string{strconv.FormatUint(uint64(p.GetId()), 10)} },
	compare: func(a, b *gatewayv1.Proxy) int { return cmp.Compare(a.GetId(), b.GetId()) },
}

var virtualServices = resource[*typev1.VirtualService]{
	plural: "vservices", singular: "vservice", aliases: []string{"vs", "virtualservices", "virtualservice"},
	short: "List the virtual services of the cluster",
	example: `  ax get vservices
  ax get vservices -o wide     also those that --ip and --name of applications imply`,
	path: "/v1/vservices", field: "virtualServices", kind: registryv1.Kind_KIND_VIRTUAL_SERVICE, record: "virtualService",
	columns: func(time.Time) output.Columns[*typev1.VirtualService] {
		return output.VirtualServices(isImplied)
	},
	names:   func(v *typev1.VirtualService) []string { return []string{v.GetName(), v.GetIp()} },
	compare: func(a, b *typev1.VirtualService) int { return cmp.Compare(a.GetName(), b.GetName()) },
	implied: impliedServices, impliedBy: []registryv1.Kind{registryv1.Kind_KIND_APP, registryv1.Kind_KIND_NODE},
}

// isImplied tells the virtual services that applications imply by their names, which no stored one can have.
func isImplied(v *typev1.VirtualService) bool { return strings.HasPrefix(v.GetName(), "<") }

// impliedServices makes a virtual service of each address that applications were given, rather than their node's.
func impliedServices(ctx context.Context, client *api.Client) ([]*typev1.VirtualService, error) {
	var apps registryv1.ListAppsResponse
	var nodes registryv1.ListNodesResponse
	if _, err := client.Get(ctx, "/v1/apps", nil, &apps); err != nil {
		return nil, err
	}
	if _, err := client.Get(ctx, "/v1/nodes", nil, &nodes); err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, n := range nodes.GetNodes() {
		own[n.GetIp()] = true
	}
	names := map[string][]string{} // by address
	for _, a := range apps.GetApps() {
		if ip := a.GetIp(); !own[ip] {
			names[ip] = append(names[ip], a.GetName())
		}
	}
	var out []*typev1.VirtualService
	for ip, n := range names {
		name := ip
		if n = slices.Compact(slices.Sorted(slices.Values(n))); len(n) == 1 && !strings.HasPrefix(n[0], "<") {
			name = n[0]
		}
		out = append(out, &typev1.VirtualService{Name: "<" + name + ">", Ip: ip, Backends: []string{ip}})
	}
	return out, nil
}

func compareAddress(a, b *typev1.SocketAddress) int {
	ipA, _ := netip.ParseAddr(a.GetIp())
	ipB, _ := netip.ParseAddr(b.GetIp())
	return ax.CompareAddrPort(netip.AddrPortFrom(ipA, uint16(a.GetPort())), netip.AddrPortFrom(ipB, uint16(b.GetPort())))
}
