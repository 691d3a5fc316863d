package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/check"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/cmd/axctl/internal/status"
	"appswitch.io/cmd/axctl/internal/sysdump"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/service"
	"appswitch.io/internal/version"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	"github.com/spf13/cobra"
)

// dumpFlags are the flags of `sysdump`.
type dumpFlags struct {
	debug []string // addresses of metrics and profiles
	logs  []string
}

func newSysdump() *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{
		Use:   "sysdump [FILE]",
		Short: "Gather what a bug report needs into an archive, without secrets",
		Long: `Gather what a bug report needs into a .tar.gz: versions, kernel, 'ax check', 'ax status', all tables, the last connects,
metrics, goroutines, and the daemons' lines of the journal. A part that can't be had is noted and leaves the others alone.

Arguments of programs, private keys, passwords, tokens and the like are left out as far as they can be recognised; look
through the archive before you pass it on. FILE must not exist; "-" writes to standard output.`,
		Example: `  sudo ax sysdump
  sudo ax sysdump /tmp/report.tar.gz --log /var/log/ax.log
  ax sysdump - | tar tz`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := addClientFlags(cmd)
	fs := cmd.Flags()
	fs.StringSliceVar(&f.debug, "debug-addr", debugAddrs(), "`addresses` of the daemons' metrics and profiles (--metrics-listen of theirs)")
	fs.StringSliceVar(&f.logs, "log", nil, "`files` with logs of the daemons, besides the journal")
	_ = cmd.RegisterFlagCompletionFunc("debug-addr", cobra.NoFileCompletions)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := flags.client()
		if err != nil {
			return err
		}
		_, tls, err := flags.target()
		if err != nil {
			return err
		}
		for _, a := range f.debug {
			if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
				return usagef("--debug-addr %q: want ADDRESS:PORT, such as 127.0.0.1:6666", a)
			}
		}
		ctx, stop := untilInterrupt(cmd.Context())
		defer stop()
		now := time.Now()
		name := "appswitch-sysdump-" + now.UTC().Format("20060102-150405")
		file := name + ".tar.gz"
		if len(args) > 0 {
			file = args[0]
		}
		parts := f.parts(cmd.Root().Name(), client, tls)
		if file == "-" {
			_, err := sysdump.Write(ctx, cmd.OutOrStdout(), name, now, parts)
			return err
		}
		return writeDump(ctx, cmd.OutOrStdout(), file, name, now, parts)
	}
	return cmd
}

// debugAddrs are where the daemons have their metrics by default; `ax daemon` has them where the registry has.
func debugAddrs() []string {
	var out []string
	for _, p := range []service.Peer{service.Registry, service.Router, service.Resolver, service.NodeAgent, service.Gateway} {
		out = append(out, p.MetricsAddr())
	}
	return out
}

// writeDump writes the archive to a file that only its owner can read; one that was not finished is removed.
func writeDump(ctx context.Context, out io.Writer, file, dir string, now time.Time, parts []sysdump.Part) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists: remove it, or name another file", file)
	}
	if err != nil {
		return fmt.Errorf("sysdump: %w", err)
	}
	summary, err := sysdump.Write(ctx, f, dir, now, parts)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("sysdump: %w", err), os.Remove(file))
	}
	if _, err := fmt.Fprintf(out, "Wrote %s: %d files.\n", file, summary.Files); err != nil {
		return err
	}
	if n := len(summary.Missing); n > 0 {
		_, err = fmt.Fprintf(out, "%d parts could not be had; its README.txt says why.\n", n)
	}
	return err
}

// parts are what goes into the archive.
func (f *dumpFlags) parts(program string, client *api.Client, tls rpc.TLS) []sysdump.Part {
	table := func(path string, query url.Values) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) { return client.Get(ctx, path, query, nil) }
	}
	parts := []sysdump.Part{
		{Name: "version.txt", Get: func(context.Context) ([]byte, error) { return []byte(version.Line(program) + "\n"), nil }},
		{Name: "machine.txt", Get: sysdump.Machine},
		{Name: "check.json", Get: func(ctx context.Context) ([]byte, error) {
			o := check.DefaultOptions()
			o.RunDir, o.StateDir = environment("AX_RUN_DIR", o.RunDir), environment("AX_STATE_DIR", o.StateDir)
			var b bytes.Buffer
			err := writeChecks(&b, output.FormatJSON, check.Run(ctx, o))
			return b.Bytes(), err
		}},
		{Name: "status.json", Get: func(ctx context.Context) ([]byte, error) {
			var b bytes.Buffer
			err := writeStatus(&b, output.FormatJSON, status.Get(ctx, status.Options{
				Host: client.RemoteHost(), TLS: tls, Gateway: gatewayProbe(client), Addrs: environmentAddrs(),
			}))
			return b.Bytes(), err
		}},
		{Name: "flows.ndjson", Get: func(ctx context.Context) ([]byte, error) { return pastFlows(ctx, client) }},
	}
	for _, name := range []string{"nodes", "apps", "servers", "sockets", "vservices", "policies", "proxies"} {
		parts = append(parts, sysdump.Part{Name: "tables/" + name + ".json", JSON: true, Get: table("/v1/"+name, nil)})
	}
	for _, addr := range f.debug {
		dir := "debug/" + strings.NewReplacer(":", "_", "[", "", "]", "").Replace(addr)
		parts = append(parts,
			sysdump.Part{Name: dir + "/health.txt", Get: sysdump.Fetch("http://" + addr + "/healthz")},
			sysdump.Part{Name: dir + "/metrics.txt", Get: sysdump.Fetch("http://" + addr + "/metrics")},
			sysdump.Part{Name: dir + "/goroutines.txt", Get: sysdump.Fetch("http://" + addr + "/debug/pprof/goroutine?debug=2")},
			sysdump.Part{Name: dir + "/heap.txt", Get: sysdump.Fetch("http://" + addr + "/debug/pprof/heap?debug=1")},
		)
	}
	parts = append(parts, sysdump.Part{Name: "logs/journal.txt", Get: sysdump.Journal})
	for i, name := range f.logs {
		parts = append(parts, sysdump.Part{Name: fmt.Sprintf("logs/%d-%s", i+1, filepath.Base(name)), Get: sysdump.Tail(name)})
	}
	return parts
}

// pastFlows returns the connects that the agent has kept, one object to a line.
func pastFlows(ctx context.Context, client *api.Client) ([]byte, error) {
	var b bytes.Buffer
	err := client.Stream(ctx, "/v1/flows", url.Values{"pastOnly": {"true"}}, func(raw json.RawMessage) error {
		return output.WriteLine(&b, raw)
	})
	if errors.Is(err, api.ErrStreamEnded) {
		err = nil
	}
	return b.Bytes(), err
}

// gatewayProbe asks the gateway for something that needs it to work.
func gatewayProbe(client *api.Client) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		_, err := client.Get(ctx, "/v1/proxies", nil, &gatewayv1.ListProxiesResponse{})
		return "REST at " + client.Server(), err
	}
}

// environmentAddrs are the gRPC addresses that variables give, as `status` takes them.
func environmentAddrs() map[service.Peer]string {
	out := map[service.Peer]string{}
	for _, p := range askedPeers {
		out[p] = environment("AX_"+strings.ToUpper(string(p))+"_ADDR", "")
	}
	return out
}
