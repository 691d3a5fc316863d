// Package service is what the five daemons share: options, logs, metrics, traces, the gRPC server, signals, exit codes.
//
// Its invariant: a daemon starts without any other being there, and after SIGTERM it is gone within seconds with nothing
// left running. Start reading at [Spec] and [Main].
package service

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"appswitch.io/internal/config"
	"appswitch.io/internal/rpc"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
)

// Service is what a daemon runs: the shape that every service package has.
type Service interface {
	// Register puts the gRPC services on a server, before it serves.
	Register(grpc.ServiceRegistrar)
	// Run works until ctx ends and returns when everything that it started has stopped.
	Run(ctx context.Context) error
}

// Readiness is a Service that can't answer calls from the start: until it is ready its health says so, and clients that
// know another one go there.
type Readiness interface {
	Ready() bool
}

// Reloadable is a Service some of whose options can change while it runs.
type Reloadable interface {
	Live() config.Live
}

// Config is the configuration of a service. It is a pointer to a struct, whose copy with the defaults serves to load the
// options again.
type Config interface {
	Flags(*pflag.FlagSet)
	Validate() error
}

// Spec describes a daemon.
type Spec struct {
	Name    string   // of the program: registryd
	Self    Peer     // which daemon it is; gives the default ports
	Short   string   // one line: what it does
	Long    string   // a paragraph or two, for --help
	Example string   // a few command lines, indented by two blanks, for --help
	Config  Config   // options of the service; Flags fills it
	Peers   []Peer   // daemons that it calls; each gets a flag such as --registry-addr
	Foreign []string // further AX_* variables that are none of its business
	// Build makes the service from its configuration, which is complete and valid by then. It starts nothing.
	Build func(Env) (Service, error)
}

// Env is what a service is built with.
type Env struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry // to register on, and to show
	Tracer  opentracing.Tracer
	TLS     rpc.TLS
	conns   map[Peer]*grpc.ClientConn
}

// Conn returns the connection to a daemon of Spec.Peers, for a generated client.
func (e Env) Conn(p Peer) grpc.ClientConnInterface {
	if c, ok := e.conns[p]; ok {
		return c
	}
	return undeclared{p}
}

// Exit codes.
const (
	ExitOK    = 0
	ExitError = 1 // it could not start, or failed while running
	ExitUsage = 2 // the options are wrong
)

// Main runs a daemon and exits. SIGINT and SIGTERM end it in order, a second one at once. SIGHUP reloads its options.
func Main(spec Spec) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() { // lives as long as the process
		s := <-signals
		cancel(errors.New("received " + s.String()))
		<-signals
		os.Exit(ExitError)
	}()
	os.Exit(Run(ctx, spec, Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr, Hangup: hangup, ConfigFile: config.DefaultFile}))
}
