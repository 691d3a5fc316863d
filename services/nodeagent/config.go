package nodeagent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/route"
	"appswitch.io/services/nodeagent/internal/admission"
	"appswitch.io/services/nodeagent/internal/portpool"
	"appswitch.io/services/nodeagent/launch/dirs"
	"github.com/spf13/pflag"
)

// Config of a node agent.
type Config struct {
	NodeName      string
	NodeInterface string   // interface or address towards peers; empty: the first one with an IPv4 address
	NodeLabels    []string // that describe the node, "k=v"
	Cluster       string
	Driver        string
	Ports         string // host ports for applications
	RunDir        string // holds the socket that applications use
	StateDir      string // private state, on tmpfs: it is of no use after a reboot
	Clean         bool
	AgentTimeout  time.Duration
	DNS           bool
	DNSDomain     string
	ResolverAddr  string   // where name lookups go, if Deps.ResolverAddr is not set
	ReservedPorts []uint16 // of the node's address: AppSwitch's own, denied to applications
	Version       string
	Admit         []string            // rules about what local users other than root may claim
	Outliers      route.OutlierConfig // when endpoints to which connects fail are left out
}

// DefaultConfig returns the defaults of every flag.
func DefaultConfig() Config {
	name, _ := os.Hostname()
	own := ownDirs()
	runDir := os.Getenv("AX_RUN_DIR")
	if runDir == "" {
		runDir = own.Run()
	}
	return Config{
		NodeName: name, Cluster: "appswitch", Driver: "user", Ports: "40000-60000", RunDir: runDir, StateDir: own.AgentState(),
		AgentTimeout: 30 * time.Second, DNS: true, DNSDomain: "appswitch.local", Outliers: route.DefaultOutlierConfig(),
		ReservedPorts: []uint16{6660, 6662, 6663, 6664, 6665, 6666, 7946, 7947},
	}
}

// ownDirs are the directories of the user who runs this program.
func ownDirs() dirs.User {
	return dirs.User{UID: os.Geteuid(), Getenv: os.Getenv, Exists: func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}}
}

// Flags adds the options to a flag set.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.NodeName, "node-name", c.NodeName, "name of the node")
	fs.StringVar(&c.NodeInterface, "node-interface", c.NodeInterface, "interface or IP address towards peers (default: the first non-loopback interface with an IPv4 address)")
	fs.StringSliceVar(&c.NodeLabels, "node-labels", c.NodeLabels, "labels that describe the node, such as rack=a1,disk=ssd; shown by get nodes, of no effect on who may reach whom")
	fs.StringVar(&c.Cluster, "cluster", c.Cluster, "name of the cluster")
	fs.StringVar(&c.Driver, "driver", c.Driver, "interception driver: user (seccomp user notification)")
	fs.StringVar(&c.Ports, "ports", c.Ports, "host ports given to applications: ports and ranges, separated by commas")
	fs.StringVar(&c.RunDir, "run-dir", c.RunDir, "directory of the socket that applications and containers use")
	fs.StringVar(&c.StateDir, "agent-state-dir", c.StateDir, "directory of the agent's private state, on a tmpfs")
	fs.BoolVar(&c.Clean, "clean", c.Clean, "drop the state that an earlier agent has saved")
	fs.StringVar(&c.ResolverAddr, "dns-addr", c.ResolverAddr, "address:port of the DNS server to which applications' name lookups go")
	fs.BoolVar(&c.DNS, "dns", c.DNS, "lead applications' name lookups to the DNS server")
	fs.StringVar(&c.DNSDomain, "dns-domain", c.DNSDomain, "domain of the names of services")
	fs.DurationVar(&c.AgentTimeout, "agent-timeout", c.AgentTimeout, "how long applications' calls wait for an agent that is away, or for the first routes")
	fs.StringSliceVar(&c.Admit, "admit", c.Admit, "rules about who but root may claim which addresses, names and labels, such as 'uid=1001 ip=10.1.0.0/16 name=web-* label=role=prod' (docs/security.md)")
	outlierFlags(fs, &c.Outliers)
}

// Validate reports the first option that can't work.
func (c Config) Validate() error {
	if c.NodeName == "" {
		return errors.New("--node-name: empty, and the host has no name: give one")
	}
	if _, err := c.labels(); err != nil {
		return fmt.Errorf("--node-labels: %w", err)
	}
	if c.Driver != "user" {
		return fmt.Errorf("--driver %q: this build has the user driver only: use --driver user", c.Driver)
	}
	if _, err := portpool.New(c.Ports); err != nil {
		return fmt.Errorf("--ports: %w", err)
	}
	if _, err := admission.ParseRules(c.Admit); err != nil {
		return fmt.Errorf("--admit: %w", err)
	}
	if c.AgentTimeout <= 0 {
		return fmt.Errorf("--agent-timeout %s: must be more than 0", c.AgentTimeout)
	}
	if err := c.Outliers.Validate(); err != nil {
		return fmt.Errorf("--outlier-%w", err)
	}
	for _, dir := range []string{c.RunDir, c.StateDir} {
		if dir == "" {
			return errors.New("--run-dir and --agent-state-dir: there is neither XDG_RUNTIME_DIR nor a home directory: set one of them, or name both directories")
		}
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("directory %q: give an absolute path", dir)
		}
	}
	if c.ResolverAddr != "" {
		if _, err := netip.ParseAddrPort(c.ResolverAddr); err != nil {
			return fmt.Errorf("--dns-addr %q: want address:port", c.ResolverAddr)
		}
	}
	return nil
}

// InterfaceAddr finds the IPv4 address for --node-interface: an address of the host, an interface's first address, or,
// for the empty string, that of the first interface that is up and not loopback.
func InterfaceAddr(name string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		l, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip.AsSlice()})
		if err != nil {
			return netip.Addr{}, fmt.Errorf("node interface %s: not an address of this host: %w", name, err)
		}
		_ = l.Close()
		return ip.Unmap(), nil
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range interfaces {
		if name != "" && i.Name != name {
			continue
		}
		if name == "" && (i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return netip.Addr{}, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				return p.Addr(), nil
			}
		}
	}
	if name != "" {
		return netip.Addr{}, fmt.Errorf("node interface %q: no interface of that name has an IPv4 address", name)
	}
	return netip.Addr{}, errors.New("no interface but loopback has an IPv4 address: give one to the host, or name an address with --node-interface")
}

// labels returns those of the node.
func (c Config) labels() (ax.Labels, error) {
	if len(c.NodeLabels) == 0 {
		return ax.Labels{}, nil
	}
	return ax.ParseLabels(strings.Join(c.NodeLabels, ","))
}

func (c Config) node(addr netip.Addr) ax.Node {
	labels, _ := c.labels() // Validate has seen them
	return ax.Node{
		Labels: labels,
		Name:   ax.NodeName(c.NodeName), Cluster: c.Cluster, Addr: addr, Version: c.Version, Driver: c.Driver,
		Start: time.Now().UTC(), ReservedPorts: c.ReservedPorts,
	}
}
