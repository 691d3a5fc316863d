package registry

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
)

// Config is the configuration of the registry.
type Config struct {
	EtcdEndpoints     []string      // of an external etcd cluster; none: embed one
	EtcdListen        netip.Addr    // where the embedded etcd listens; the zero Addr: on a socket in StateDir only
	EtcdClientPort    uint16        // of the embedded etcd, with EtcdListen
	EtcdPeerPort      uint16        // of the embedded etcd, with EtcdListen
	EtcdUnsafeNoFsync bool          // give up durability for speed
	StateDir          string        // of the embedded etcd
	IPPool            netip.Prefix  // from which addresses are made up for names
	ClaimTTL          time.Duration // of an address that no application holds any more
	LeaseTTL          time.Duration // of a node whose agent asks for none in particular
}

// DefaultConfig returns the configuration of a registry on its own.
func DefaultConfig() Config {
	return Config{
		EtcdClientPort: 6662,
		EtcdPeerPort:   6663,
		StateDir:       defaultStateDir(),
		IPPool:         netip.MustParsePrefix("198.18.0.0/15"),
		ClaimTTL:       time.Hour,
		LeaseTTL:       10 * time.Second,
	}
}

// defaultStateDir is the system's for root and the user's own for anyone else.
func defaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/appswitch/registry"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "appswitch", "registry")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "" // Validate asks for --state-dir
	}
	return filepath.Join(home, ".local", "state", "appswitch", "registry")
}

// Flags declares the options, with the present values as defaults.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", c.EtcdEndpoints, "use the etcd cluster at HOST:PORT,... instead of an embedded server")
	fs.TextVar(&c.EtcdListen, "etcd-listen", c.EtcdListen, "`IP` at which the embedded etcd can be reached over the network (default: only on etcd.sock in the state directory)")
	fs.Uint16Var(&c.EtcdClientPort, "etcd-client-port", c.EtcdClientPort, "client port of the embedded etcd, with --etcd-listen")
	fs.Uint16Var(&c.EtcdPeerPort, "etcd-peer-port", c.EtcdPeerPort, "peer port of the embedded etcd, with --etcd-listen")
	fs.BoolVar(&c.EtcdUnsafeNoFsync, "etcd-unsafe-no-fsync", c.EtcdUnsafeNoFsync, "let the embedded etcd answer before its writes are on disk; for tests and benchmarks: a power failure loses the table")
	fs.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory of the embedded etcd")
	fs.TextVar(&c.IPPool, "ip-pool", c.IPPool, "`PREFIX` of the addresses that are made up for names")
	fs.DurationVar(&c.ClaimTTL, "claim-ttl", c.ClaimTTL, "how long an address stays virtual after the last application that had it")
	fs.DurationVar(&c.LeaseTTL, "lease-ttl", c.LeaseTTL, "how long a node that does not report stays in the table, unless its agent asks otherwise")
}

// Validate reports everything that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for _, e := range c.EtcdEndpoints {
		errs = append(errs, checkEndpoint(e))
	}
	if len(c.EtcdEndpoints) > 0 && c.EtcdListen.IsValid() {
		errs = append(errs, errors.New("--etcd-listen is for the embedded etcd: it can't go with --etcd-endpoints"))
	}
	if len(c.EtcdEndpoints) == 0 && c.StateDir == "" {
		errs = append(errs, errors.New("--state-dir: missing; the embedded etcd needs a directory, such as /var/lib/appswitch/registry"))
	}
	if c.EtcdListen.IsValid() && (c.EtcdClientPort == 0 || c.EtcdPeerPort == 0 || c.EtcdClientPort == c.EtcdPeerPort) {
		errs = append(errs, fmt.Errorf("--etcd-client-port %d and --etcd-peer-port %d: want two different ports", c.EtcdClientPort, c.EtcdPeerPort))
	}
	if !c.IPPool.IsValid() || c.IPPool.Addr().BitLen()-c.IPPool.Bits() < 2 {
		errs = append(errs, fmt.Errorf("--ip-pool %s: want at least four addresses, such as 198.18.0.0/15", c.IPPool))
	}
	if c.ClaimTTL <= 0 {
		errs = append(errs, fmt.Errorf("--claim-ttl %s: want more than nothing, such as 1h", c.ClaimTTL))
	}
	if c.LeaseTTL < 2*time.Second || c.LeaseTTL > time.Hour {
		errs = append(errs, fmt.Errorf("--lease-ttl %s: want 2s to 1h", c.LeaseTTL))
	}
	return errors.Join(errs...)
}

func checkEndpoint(e string) error {
	hostPort := e
	if u, err := url.Parse(e); err == nil && u.Host != "" {
		hostPort = u.Host
	} else if err == nil && (u.Scheme == "unix" || u.Scheme == "unixs") && (u.Path != "" || u.Opaque != "") {
		return nil
	}
	if _, port, err := net.SplitHostPort(hostPort); err != nil || port == "" {
		return fmt.Errorf("--etcd-endpoints %q: want HOST:PORT, such as 10.0.2.15:2379", e)
	}
	return nil
}
