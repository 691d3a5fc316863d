package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"

	"appswitch.io/internal/config"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/telemetry"
	"appswitch.io/internal/version"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
)

// Process is the part of the operating system that a daemon sees at start.
type Process struct {
	Args           []string
	Environ        []string
	Stdout, Stderr io.Writer
	Hangup         <-chan os.Signal // each one reloads the options; may be nil
	ConfigFile     string           // read if it exists and --config names no other
}

// showConfig names the flag that shows the options.
const showConfig = "show-config"

// SharedVariables are those of all programs of AppSwitch: one environment may serve several of them, so each passes over
// what is another's (config.Options.Foreign).
var SharedVariables = []string{
	"AX_OUTLIER_FAILURES", "AX_OUTLIER_BASE_TIME", "AX_OUTLIER_MAX_TIME", "AX_OUTLIER_MAX_SHARE",
	"AX_ADMIT", "AX_SERVER", "AX_CONTEXT", "AX_RUN_DIR", "AX_STATE_DIR", "AX_AGENT_STATE_DIR", "AX_DRIVER", "AX_NODE_INTERFACE", "AX_NODE_NAME", "AX_NEIGHBORS", "AX_CLUSTER",
	"AX_CLEAN", "AX_DNS", "AX_DNS_ADDR", "AX_DNS_ALLOW_FORWARD", "AX_DNS_CACHE_SIZE", "AX_DNS_DOMAIN", "AX_DNS_LISTEN", "AX_DNS_PORT", "AX_DNS_SERVERS",
	"AX_PORTS", "AX_NODE_LABELS", "AX_ETCD_UNSAFE_NO_FSYNC", "AX_REFLECTION", "AX_AGENT_TIMEOUT", "AX_REST_PORT", "AX_REST_LISTEN", "AX_GRPC_LISTEN", "AX_GOSSIP_PORT", "AX_GOSSIP_AUTO_DISCOVER", "AX_EGRESS_GATEWAY",
	"AX_FEDERATION_GATEWAY_IP", "AX_FEDERATION_GATEWAY_ADVERTISE_IP", "AX_FEDERATION_GATEWAY_PORT",
	"AX_FEDERATION_GATEWAY_GOSSIP_PORT", "AX_FEDERATION_GATEWAY_NEIGHBORS",
	"AX_ETCD_ENDPOINTS", "AX_ETCD_LISTEN", "AX_ETCD_CLIENT_PORT", "AX_ETCD_PEER_PORT", "AX_IP_POOL", "AX_CLAIM_TTL", "AX_LEASE_TTL",
	"AX_IP", "AX_NAME", "AX_LABELS", "AX_EXPOSE", "AX_USER", "AX_INTERFACE", "AX_NEW_NETNS", "AX_DNS_OVERRIDE", "AX_INIT",
	"AX_REGISTRY_ADDR", "AX_ROUTER_ADDR", "AX_RESOLVER_ADDR", "AX_NODEAGENT_ADDR", "AX_GATEWAY_ADDR",
}

// options are those of a daemon, all of them.
type options struct {
	fs          *pflag.FlagSet
	own, shared *pflag.FlagSet // the parts of fs, for --help
	origins     config.Origins
	config      Config // of the service
	listen      string
	reflection  bool
	tls         rpc.TLS
	telemetry   telemetry.Config
	peers       peerConfig
}

// Run runs a daemon until ctx ends and returns its exit code.
func Run(ctx context.Context, spec Spec, p Process) int {
	defaults := clone(spec.Config)
	o := declare(spec, spec.Config)
	err := o.fs.Parse(p.Args)
	replay := config.CommandLine(o.fs)
	switch {
	case errors.Is(err, pflag.ErrHelp) || flagSet(o.fs, "help"):
		fmt.Fprint(p.Stdout, help(spec, o.own, o.shared))
		return ExitOK
	case err == nil && flagSet(o.fs, "version"):
		fmt.Fprintln(p.Stdout, version.Line(spec.Name))
		return ExitOK
	case err == nil:
		err = o.complete(spec, p)
	}
	if err == nil && flagSet(o.fs, showConfig) {
		err = config.WriteView(p.Stdout, config.View(o.fs, o.origins))
		if err == nil {
			return ExitOK
		}
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(p.Stderr, "%s: %s\n", spec.Name, line)
		}
		fmt.Fprintf(p.Stderr, "Run '%s --help' for the options.\n", spec.Name)
		return ExitUsage
	}
	reload := func() (*pflag.FlagSet, error) {
		again := declare(spec, clone(defaults))
		err := replay(again.fs)
		if err == nil {
			err = again.complete(spec, p)
		}
		return again.fs, err
	}
	if err := run(ctx, spec, o, p, reload); err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
		return ExitError
	}
	return ExitOK
}

// declare makes the options of a daemon, with cfg for those of its service.
func declare(spec Spec, cfg Config) *options {
	o := &options{
		fs: pflag.NewFlagSet(spec.Name, pflag.ContinueOnError), own: pflag.NewFlagSet("", pflag.ContinueOnError),
		shared: pflag.NewFlagSet("", pflag.ContinueOnError), config: cfg, telemetry: telemetry.DefaultConfig(),
	}
	o.fs.SetOutput(io.Discard)
	o.fs.Usage = func() {}
	o.telemetry.MetricsListen = spec.Self.MetricsAddr()
	cfg.Flags(o.own)
	o.peers = newPeerConfig(spec.Peers, o.own)
	o.flags(spec, o.shared)
	o.fs.AddFlagSet(o.own)
	o.fs.AddFlagSet(o.shared)
	return o
}

// clone copies a configuration. Its lists are shared, which is safe: flags replace a list as a whole.
func clone(c Config) Config {
	v := reflect.ValueOf(c).Elem()
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Interface().(Config) //nolint:forcetypeassert // it is c's own type
}

func (o *options) flags(spec Spec, fs *pflag.FlagSet) {
	fs.StringVar(&o.listen, "listen", spec.Self.Addr(), "ADDRESS:PORT of gRPC; several separated by commas; beyond loopback use --tls")
	fs.BoolVar(&o.reflection, "reflection", true, "let gRPC tools list services and methods")
	o.tls.Flags(fs)
	o.telemetry.Flags(fs)
	fs.String(config.FileFlag, "", "read options from this YAML, TOML or JSON file: the flags' names without dashes in front")
	fs.BoolP("help", "h", false, "show this help")
	fs.Bool("version", false, "show the version")
	fs.Bool(showConfig, false, "show each option, its value and where that came from, and exit")
}

// complete reads the other sources of options and checks all of them.
func (o *options) complete(spec Spec, p Process) (err error) {
	if o.fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", o.fs.Arg(0))
	}
	o.origins, err = config.Load(o.fs, config.Options{Environ: p.Environ, Foreign: slices.Concat(spec.Foreign, SharedVariables), File: p.ConfigFile})
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range o.addresses() {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, fmt.Errorf("--listen %q: want ADDRESS:PORT, such as %s", a, spec.Self.Addr()))
		}
	}
	errs = append(errs, o.tls.Validate(), o.telemetry.Validate(), o.config.Validate())
	return errors.Join(errs...)
}

func (o *options) addresses() []string {
	var out []string
	for a := range strings.SplitSeq(o.listen, ",") {
		out = append(out, strings.TrimSpace(a))
	}
	return out
}

// run builds everything in the order in which it depends on each other and takes it down the other way round.
func run(ctx context.Context, spec Spec, o *options, p Process, reload func() (*pflag.FlagSet, error)) error {
	tel, err := telemetry.New(o.telemetry, telemetry.Options{Program: spec.Name, Output: p.Stderr})
	if err != nil {
		return err
	}
	conns, hangUp, err := o.peers.dial(rpc.ClientConfig{Log: tel.Log, Metrics: tel.Metrics, Tracer: tel.Tracer, TLS: o.tls})
	if err != nil {
		return err
	}
	defer hangUp()
	svc, err := spec.Build(Env{Log: tel.Log, Metrics: tel.Metrics, Tracer: tel.Tracer, TLS: o.tls, conns: conns})
	if err != nil {
		return err
	}
	serverConfig := rpc.ServerConfig{Log: tel.Log, Metrics: tel.Metrics, Tracer: tel.Tracer, TLS: o.tls, Reflection: o.reflection}
	if r, ok := svc.(Readiness); ok {
		serverConfig.Ready = r.Ready
	}
	server, err := rpc.NewServer(serverConfig)
	if err != nil {
		return err
	}
	svc.Register(server)
	live := tel.Live()
	if r, ok := svc.(Reloadable); ok {
		maps.Copy(live, r.Live())
	}
	reloader, err := config.NewReloader(config.ReloaderConfig{Log: tel.Log, Metrics: tel.Metrics, Running: o.fs, Load: reload, Live: live})
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, spec.Name, o.addresses())
	if err != nil {
		server.Stop()
		return err
	}
	return runAll(ctx, parts{tel: tel, svc: svc, server: server, listeners: listeners, reload: func(ctx context.Context) error {
		return reloader.Run(ctx, p.Hangup)
	}})
}

// parts is what a daemon runs.
type parts struct {
	tel       *telemetry.Telemetry
	svc       Service
	server    *rpc.Server
	listeners []net.Listener
	reload    func(context.Context) error
}

// runAll runs server and service until ctx ends or one of them does, and telemetry until both are gone.
func runAll(ctx context.Context, p parts) error {
	tel := p.tel
	telCtx, stopTelemetry := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTelemetry()
	work, ctx := errgroup.WithContext(ctx)
	var outer errgroup.Group
	telFailed := make(chan error, 1)
	outer.Go(func() error {
		err := tel.Run(telCtx)
		telFailed <- err
		return err
	})
	work.Go(func() error { // a debug port that can't be had ends the daemon as well
		select {
		case err := <-telFailed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	work.Go(func() error { return rpc.Serve(ctx, p.server, p.listeners...) })
	work.Go(func() error { return p.reload(ctx) })
	work.Go(func() error {
		err := p.svc.Run(ctx)
		switch stopping := ctx.Err() != nil; {
		case err == nil && !stopping:
			return errors.New("the service ended by itself")
		case stopping && errors.Is(err, context.Canceled): // as told
			return nil
		}
		return err
	})
	for _, l := range p.listeners {
		tel.Log.Info("serving gRPC", "address", l.Addr().String(), "version", version.Get().String())
	}
	err := work.Wait()
	if err == nil { // a failure is reported by whoever called
		tel.Log.Info("stopped", "reason", context.Cause(ctx))
	}
	stopTelemetry()
	return errors.Join(err, ignore(outer.Wait(), err))
}

// ignore drops an error that has been reported already.
func ignore(err, reported error) error {
	if errors.Is(reported, err) {
		return nil
	}
	return err
}

func listen(ctx context.Context, name string, addresses []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, a := range addresses {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a)
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return nil, fmt.Errorf("--listen: %w: choose another, or stop what uses it; is a %s running already?", err, name)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func flagSet(fs *pflag.FlagSet, name string) bool {
	f := fs.Lookup(name)
	return f != nil && f.Changed && f.Value.String() == "true"
}

func help(spec Spec, own, shared *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", spec.Name, spec.Short)
	if spec.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(spec.Long))
	}
	fmt.Fprintf(&b, "\nUsage:\n  %s [options]\n", spec.Name)
	if spec.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", strings.TrimRight(spec.Example, "\n "))
	}
	const width = 110
	fmt.Fprintf(&b, "\nOptions:\n%s\nOptions of every daemon:\n%s", own.FlagUsagesWrapped(width), shared.FlagUsagesWrapped(width))
	b.WriteString("\nEvery option can be given as a variable too (--node-name is AX_NODE_NAME), in AX_OPTS, or in the file that\n--config names. The command line wins, then AX_OPTS, the variable, the file (" + config.DefaultFile + " if --config\nnames none). SIGHUP reloads the options.\n")
	return b.String()
}
