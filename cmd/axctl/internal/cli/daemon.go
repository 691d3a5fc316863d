package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"appswitch.io/cmd/axctl/internal/daemon"
	"appswitch.io/internal/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// foreign are the variables that are for other commands and for the separate daemons: one environment may serve all.
var foreign = []string{
	"AX_SERVER", "AX_CONTEXT", "AX_IP", "AX_NAME", "AX_LABELS", "AX_EXPOSE", "AX_USER", "AX_INTERFACE", "AX_NEW_NETNS",
	"AX_LISTEN", "AX_REFLECTION", "AX_REGISTRY_ADDR", "AX_ROUTER_ADDR", "AX_RESOLVER_ADDR", "AX_NODEAGENT_ADDR", "AX_GATEWAY_ADDR",
}

func newDaemon() *cobra.Command {
	o := daemon.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Start the AppSwitch daemon: all that a node needs",
		Long: `Start the AppSwitch daemon: registry, router, resolver, node agent and gateway in one process.

It is ready when it logs "ready", and when 'ax status' succeeds. SIGTERM ends it in order; programs go on running, and
their calls wait for the next daemon (--agent-timeout).

Every option can be given as a variable too (--node-name is AX_NODE_NAME), in AX_OPTS, or in the file that --config names.
The command line wins, then AX_OPTS, the variable, the file (` + config.DefaultFile + ` if --config names none).
'ax config view' shows what holds. SIGHUP reloads log level, DNS forwarders and labels of the node; the log says what
needs a restart.`,
		Example: `  sudo ax daemon
  sudo ax daemon --node-interface eth0 --node-name node1
  sudo ax daemon --ports 4000,6000-8000 --dns-servers 127.0.0.1:5533,8.8.8.8
  sudo ax daemon --clean                        without the state of sessions before
  sudo ax daemon --etcd-endpoints 10.0.0.5:2379
  AX_NODE_NAME=node1 AX_OPTS=--clean ax daemon  as in a compose file`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			replay := config.CommandLine(cmd.Flags())
			if _, err := loadDaemon(o, cmd.Flags()); err != nil {
				return usageError{err}
			}
			o.Reload = &daemon.Reload{Signals: hangup, Load: func() (*daemon.Options, error) { return daemonAgain(replay) }}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return daemon.Run(ctx, o, cmd.ErrOrStderr())
		},
	}
	o.Flags(cmd.Flags())
	_ = cmd.MarkFlagFilename(config.FileFlag, "yaml", "yml", "toml", "json")
	return cmd
}

// loadDaemon fills the options of a daemon from where users put them, and says where each came from.
func loadDaemon(o *daemon.Options, fs *pflag.FlagSet) (config.Origins, error) {
	origins, err := config.Load(fs, config.Options{Environ: os.Environ(), Foreign: foreign, File: config.DefaultFile})
	if err != nil {
		return origins, err
	}
	return origins, o.Complete()
}

// daemonAgain loads the options of a daemon anew, with the command line that it was started with.
func daemonAgain(replay func(*pflag.FlagSet) error) (*daemon.Options, error) {
	o, fs := daemon.DefaultOptions(), pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	o.Flags(fs)
	if err := replay(fs); err != nil {
		return nil, err
	}
	_, err := loadDaemon(o, fs)
	return o, err
}

// untilSignal returns a context that ends with SIGINT or SIGTERM. A second one ends the process at once.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with done
		for first := true; ; first = false {
			select {
			case <-done:
				return
			case s := <-signals:
				if !first {
					fmt.Fprintln(os.Stderr, "ax daemon: second signal: ended at once")
					os.Exit(exitFailed)
				}
				cancel(&daemon.SignalError{Name: s.String()})
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
