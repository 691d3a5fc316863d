package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"appswitch.io/internal/config"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/telemetry"
	"appswitch.io/internal/version"
	"appswitch.io/services/gateway"
	"appswitch.io/services/nodeagent"
	"appswitch.io/services/registry"
	"appswitch.io/services/resolver"
	"appswitch.io/services/router"
	"github.com/spf13/pflag"
)

// Options are those of all services, and the few that only the daemon has.
type Options struct {
	GRPCListen string // address of all services' gRPC
	StateDir   string // the services' own directories are below
	Reflection bool   // let gRPC tools list the services

	TLS       rpc.TLS
	Telemetry telemetry.Config
	Registry  registry.Config
	Router    router.Config
	Resolver  resolver.Config
	NodeAgent nodeagent.Config
	Gateway   gateway.Config

	// Reload, if set, serves to load the options again.
	Reload *Reload

	flags *pflag.FlagSet // tell what was given from what is the default
}

// Reload says when and how to load the options again.
type Reload struct {
	Signals <-chan os.Signal
	Load    func() (*Options, error) // new ones from the same sources, complete
}

// DefaultOptions are those of a daemon without options.
func DefaultOptions() *Options {
	o := &Options{
		GRPCListen: "127.0.0.1:6665",
		Reflection: true,
		Telemetry:  telemetry.DefaultConfig(),
		Registry:   registry.DefaultConfig(),
		Router:     router.DefaultConfig(),
		Resolver:   resolver.DefaultConfig(),
		NodeAgent:  nodeagent.DefaultConfig(),
		Gateway:    gateway.DefaultConfig(),
	}
	if dir := o.Registry.StateDir; dir != "" {
		o.StateDir = filepath.Dir(dir)
	}
	o.NodeAgent.Version = version.Get().String()
	return o
}

// inside are flags of services that the daemon answers itself: it knows where its own services are, and gives each a
// directory below --state-dir.
var inside = []string{"state-dir", "dns-addr"}

// Flags declares all options. It is called once.
func (o *Options) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.GRPCListen, "grpc-listen", o.GRPCListen, "`ADDRESS:PORT` of the services' gRPC; beyond loopback use --tls")
	fs.BoolVar(&o.Reflection, "reflection", o.Reflection, "let gRPC tools list services and methods")
	fs.StringVar(&o.StateDir, "state-dir", o.StateDir, "`DIRECTORY` of what the daemon keeps")
	fs.String(config.FileFlag, "", "read options from this YAML, TOML or JSON `FILE`: the flags' names without dashes in front")
	o.TLS.Flags(fs)
	o.Telemetry.Flags(fs)
	// The resolver first: where services share an option, the words of the first describe it.
	for _, flags := range []func(*pflag.FlagSet){o.Resolver.Flags, o.NodeAgent.Flags, o.Router.Flags, o.Registry.Flags, o.Gateway.Flags} {
		own := pflag.NewFlagSet("", pflag.ContinueOnError)
		flags(own)
		merge(fs, own, inside...)
	}
	AddUnavailable(fs, later...)
	o.flags = fs
}

// Complete derives what follows from other options, and reports everything that can't work.
func (o *Options) Complete() error {
	var errs []error
	if _, port, err := net.SplitHostPort(o.GRPCListen); err != nil || port == "" {
		errs = append(errs, fmt.Errorf("--grpc-listen %q: want ADDRESS:PORT, such as 127.0.0.1:6665", o.GRPCListen))
	}
	if o.StateDir == "" {
		errs = append(errs, errors.New("--state-dir: missing, and there is no home directory: name one"))
	} else if dir, err := filepath.Abs(o.StateDir); err != nil {
		errs = append(errs, fmt.Errorf("--state-dir: %w", err))
	} else {
		o.StateDir = dir
		o.Registry.StateDir = filepath.Join(dir, "registry")
		// The agent's state belongs on a tmpfs; but two daemons with directories of their own must not share it.
		if o.changed("state-dir") && !o.changed("agent-state-dir") {
			o.NodeAgent.StateDir = filepath.Join(dir, "agent")
		}
	}
	o.NodeAgent.ReservedPorts = o.reservedPorts()
	errs = append(errs, o.TLS.Validate(), o.Telemetry.Validate(), o.Registry.Validate(), o.Router.Validate(),
		o.Resolver.Validate(), o.NodeAgent.Validate(), o.Gateway.Validate())
	return errors.Join(errs...)
}

func (o *Options) changed(flag string) bool { return o.flags != nil && o.flags.Changed(flag) }

// reservedPorts adds the ports that options have moved to those that are AppSwitch's in any case.
func (o *Options) reservedPorts() []uint16 {
	ports := append([]uint16{}, o.NodeAgent.ReservedPorts...)
	ports = append(ports, uint16(o.Gateway.RESTPort), o.Registry.EtcdClientPort, o.Registry.EtcdPeerPort)
	for _, addr := range []string{o.GRPCListen, o.Telemetry.MetricsListen} {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				ports = append(ports, uint16(n))
			}
		}
	}
	slices.Sort(ports)
	return slices.DeleteFunc(slices.Compact(ports), func(p uint16) bool { return p == 0 })
}

// restAddrs are the addresses of REST.
func (o *Options) restAddrs() []string {
	var out []string
	for _, ip := range o.Gateway.RESTListen {
		out = append(out, net.JoinHostPort(strings.TrimSpace(ip), strconv.Itoa(o.Gateway.RESTPort)))
	}
	return out
}
