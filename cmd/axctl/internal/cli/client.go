package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/contexts"
	"appswitch.io/internal/config"
	"appswitch.io/internal/rpc"
	"github.com/spf13/cobra"
)

// clientFlags say which daemon a command talks to.
type clientFlags struct {
	server, context string
	timeout         time.Duration
	tls             rpc.TLS
}

// clientFlagNames are the flags of addClientFlags for which target reads the variables.
var clientFlagNames = []string{"server", "context", "tls", "tls-ca-cert", "tls-cert", "tls-key"}

// addClientFlags adds the flags to cmd and to every command below it.
func addClientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{}
	fs := cmd.PersistentFlags()
	fs.StringVar(&f.server, "server", "", "`URL` of the daemon's REST interface (AX_SERVER, or that of the context; else "+api.DefaultServer+")")
	fs.StringVar(&f.context, "context", "", "`name` of the daemon in the user's configuration (AX_CONTEXT; see ax config)")
	fs.DurationVar(&f.timeout, "timeout", api.DefaultTimeout, "give up on a request after this `duration`")
	f.tls.Flags(fs)
	fs.Lookup("tls").Usage = "mutual TLS 1.3 with the daemon; https:// implies it"
	fs.Lookup("tls-cert").Usage = "`file` with the certificate to show (PEM)"
	_ = cmd.RegisterFlagCompletionFunc("server", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("context", completeContexts)
	return f
}

// target finds out which daemon is meant: what the command line names, then the environment, then the current context,
// then this machine's own. TLS files of the command line go before those of the context or the environment.
func (f *clientFlags) target() (server string, tls rpc.TLS, err error) {
	name := ""
	switch {
	case f.server != "" && f.context != "":
		return "", tls, usagef("--server and --context name two daemons: leave one of them out")
	case f.server != "":
		server = f.server
	case f.context != "":
		name = f.context
	default:
		server, name = environment("AX_SERVER", ""), environment("AX_CONTEXT", "")
	}
	if server == "" {
		if server, tls, err = contextTarget(name); err != nil {
			return "", tls, err
		}
	}
	if !tls.Enabled && f.server == "" && f.context == "" {
		tls = environmentTLS()
	}
	if f.tls != (rpc.TLS{}) {
		tls = f.tls
		tls.Enabled = tls.Enabled || strings.HasPrefix(server, "https://")
	}
	if tls.Enabled && !strings.Contains(server, "://") {
		server = "https://" + server
	}
	if err := tls.Validate(); err != nil {
		return "", tls, usageError{err}
	}
	return server, tls, nil
}

// environmentTLS reads the variables that the daemons read too; without AX_TLS the files mean nothing.
func environmentTLS() rpc.TLS {
	if on, err := strconv.ParseBool(environment("AX_TLS", "")); err != nil || !on {
		return rpc.TLS{}
	}
	return rpc.TLS{Enabled: true, CACert: environment("AX_TLS_CA_CERT", ""), Cert: environment("AX_TLS_CERT", ""), Key: environment("AX_TLS_KEY", "")}
}

// contextTarget returns the daemon of a context, by default the current one, or this machine's if there is none.
func contextTarget(name string) (server string, tls rpc.TLS, err error) {
	path, err := contexts.Path()
	if err != nil && name == "" {
		return api.DefaultServer, tls, nil // no home directory: no contexts
	}
	if err != nil {
		return "", tls, err
	}
	file, err := contexts.Load(path)
	if err != nil {
		return "", tls, err
	}
	if name == "" {
		name = file.Current
	}
	if name == "" {
		return api.DefaultServer, tls, nil
	}
	c, ok := file.Get(name)
	if !ok {
		return "", tls, unknownContext(name, file)
	}
	tls = rpc.TLS{CACert: c.TLS.CACert, Cert: c.TLS.Cert, Key: c.TLS.Key}
	tls.Enabled = tls != rpc.TLS{}
	return c.Server, tls, nil
}

func unknownContext(name string, file contexts.File) error {
	hint := didYouMean("", name, file.Names())
	if hint == "" {
		hint = ": `ax config get-contexts` lists them, `ax config set-context` adds one"
	}
	return usagef("no context %q%s", name, hint)
}

// client returns a client of the daemon that the flags, the environment or the current context name.
func (f *clientFlags) client() (*api.Client, error) {
	server, files, err := f.target()
	if err != nil {
		return nil, err
	}
	c, err := api.New(server, f.timeout)
	if err != nil {
		return nil, usageError{err}
	}
	if files.Enabled {
		tls, err := rpc.ClientTLS(files, "http/1.1")
		if err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", c.Server(), err)
		}
		c.UseTLS(tls)
	}
	return c, nil
}

// withoutClientVariables drops the variables that client reads itself from an environment.
func withoutClientVariables(environ []string) []string {
	own := map[string]bool{}
	for _, name := range clientFlagNames {
		own[config.Variable(name)] = true
	}
	var out []string
	for _, kv := range environ {
		if name, _, _ := strings.Cut(kv, "="); !own[name] {
			out = append(out, kv)
		}
	}
	return out
}

func completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	path, err := contexts.Path()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	file, err := contexts.Load(path)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return file.Names(), cobra.ShellCompDirectiveNoFileComp
}
