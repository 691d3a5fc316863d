package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appswitch.io/internal/config"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/rpc/rpctest"
	"appswitch.io/internal/version"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// demo is a service that answers ListProxies after asking its peer, if it has one.
type demo struct {
	gatewayv1.UnimplementedGatewayServiceServer
	peer gatewayv1.GatewayServiceClient
	run  func(context.Context) error
}

func (d *demo) Register(r grpc.ServiceRegistrar) { gatewayv1.RegisterGatewayServiceServer(r, d) }
func (d *demo) Run(ctx context.Context) error {
	if d.run != nil {
		return d.run(ctx)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (d *demo) ListProxies(ctx context.Context, req *gatewayv1.ListProxiesRequest) (*gatewayv1.ListProxiesResponse, error) {
	if d.peer != nil {
		return d.peer.ListProxies(ctx, req)
	}
	return &gatewayv1.ListProxiesResponse{Proxies: []*gatewayv1.Proxy{{Id: 7}}}, nil
}

// demoConfig has one option.
type demoConfig struct{ Size int }

func (c *demoConfig) Flags(fs *pflag.FlagSet) {
	fs.IntVar(&c.Size, "size", 3, "size of the demo")
}

func (c *demoConfig) Validate() error {
	if c.Size > 9 {
		return fmt.Errorf("--size %d: want at most 9", c.Size)
	}
	return nil
}

func demoSpec(cfg *demoConfig, peers []Peer, build func(Env) (Service, error)) Spec {
	if build == nil {
		build = func(Env) (Service, error) { return &demo{}, nil }
	}
	return Spec{
		Name: "demod", Self: Gateway, Short: "shows how", Long: "Longer words.", Example: "  demod --size 4\n",
		Config: cfg, Peers: peers, Build: build,
	}
}

// output collects what a program prints.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// once runs a daemon that is expected to end by itself.
func once(t *testing.T, spec Spec, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out, errs output
	code = Run(ctx, spec, Process{Args: args, Environ: env, Stdout: &out, Stderr: &errs})
	if ctx.Err() != nil {
		t.Fatalf("it did not end by itself:\n%s", errs.String())
	}
	return code, out.String(), errs.String()
}

// background runs a daemon until stop, which returns its exit code.
func background(t *testing.T, spec Spec, args ...string) (stop func() int, stderr *output) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	var out output
	stderr = &output{}
	code := make(chan int, 1)
	go func() { code <- Run(ctx, spec, Process{Args: args, Stdout: &out, Stderr: stderr}) }()
	var once sync.Once
	result := -1
	stop = func() int {
		once.Do(func() {
			cancel(errors.New("the test is over"))
			select {
			case result = <-code:
			case <-time.After(10 * time.Second):
				t.Error("the daemon did not stop")
			}
		})
		return result
	}
	t.Cleanup(func() { stop() })
	return stop, stderr
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ask calls ListProxies until it answers with want.
func ask(t *testing.T, addr string, tls rpc.TLS, want codes.Code) {
	t.Helper()
	conn, err := rpc.Dial(addr, rpc.ClientConfig{TLS: tls})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := gatewayv1.NewGatewayServiceClient(conn).ListProxies(t.Context(), &gatewayv1.ListProxiesRequest{})
		if status.Code(err) == want && (err != nil || resp.GetProxies()[0].GetId() == 7) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("got %v, %v; want %v", resp, err, want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	var cfg demoConfig
	spec := demoSpec(&cfg, []Peer{Registry}, nil)
	for _, arg := range []string{"--help", "-h"} {
		code, out, errs := once(t, spec, nil, arg)
		for _, want := range []string{
			"demod: shows how", "Longer words.", "Examples:\n  demod --size 4", "--size int", "--registry-addr string", "127.0.0.1:6665",
			"--listen string", "127.0.0.1:6685", "--metrics-listen", "127.0.0.1:6686", "--tls-key", "--log-level", "--config", "AX_OPTS",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s lacks %q", arg, want)
			}
		}
		if code != ExitOK || errs != "" {
			t.Errorf("%s: %d, %q", arg, code, errs)
		}
		for line := range strings.SplitSeq(out, "\n") {
			if len(line) > 120 {
				t.Errorf("%s: a line of %d bytes: %q", arg, len(line), line)
			}
		}
	}
	if code, out, _ := once(t, spec, nil, "--version"); code != ExitOK || out != version.Line("demod")+"\n" {
		t.Errorf("--version: %d, %q", code, out)
	}
}

func TestWrongUseExitsWith2(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  []string
		want string
	}{
		{[]string{"--nope"}, nil, "unknown flag: --nope"},
		{[]string{"--size", "x"}, nil, "--size"},
		{[]string{"--size", "10"}, nil, "--size 10: want at most 9"},
		{[]string{"stray"}, nil, `unexpected argument "stray"`},
		{nil, []string{"AX_SIZE=10"}, "--size 10: want at most 9"},
		{nil, []string{"AX_SIZES=1"}, "did you mean AX_SIZE?"},
		{[]string{"--listen", "6665"}, nil, `--listen "6665": want ADDRESS:PORT`},
		{[]string{"--tls"}, nil, "--tls needs --tls-ca-cert FILE"},
		{[]string{"--log-format", "xml"}, nil, `--log-format "xml"`},
		{[]string{"--config", "/none.yaml"}, nil, "/none.yaml"},
	} {
		var cfg demoConfig
		code, out, errs := once(t, demoSpec(&cfg, nil, nil), c.env, c.args...)
		if code != ExitUsage || out != "" || !strings.Contains(errs, c.want) || !strings.Contains(errs, "Run 'demod --help'") {
			t.Errorf("%v %v: %d, %q, %q; want %q", c.args, c.env, code, out, errs, c.want)
		}
	}
}

func TestFailureToStartExitsWith1(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fine := []string{"--listen", "127.0.0.1:0", "--metrics-listen="}
	for name, c := range map[string]struct {
		args  []string
		build func(Env) (Service, error)
		want  string
	}{
		"port taken":       {append(fine, "--listen", "127.0.0.1:0,"+taken.Addr().String()), nil, "--listen: listen tcp " + taken.Addr().String()},
		"debug port taken": {append(fine, "--metrics-listen", taken.Addr().String()), nil, "--metrics-listen: listen tcp " + taken.Addr().String()},
		"build fails":      {fine, func(Env) (Service, error) { return nil, errors.New("no luck") }, "demod: no luck"},
		"run fails": {fine, func(Env) (Service, error) {
			return &demo{run: func(context.Context) error { return errors.New("tripped") }}, nil
		}, "demod: tripped"},
		"run just ends": {fine, func(Env) (Service, error) {
			return &demo{run: func(context.Context) error { return nil }}, nil
		}, "ended by itself"},
		"missing certificate": {append(fine, "--tls", "--tls-ca-cert=/none/ca", "--tls-cert=/none/c", "--tls-key=/none/k"), nil, "/none/ca"},
		"bad peer address":    {append(fine, "--registry-addr", "nowhere"), nil, `--registry-addr: gRPC address "nowhere": want HOST:PORT`},
	} {
		var cfg demoConfig
		code, _, errs := once(t, demoSpec(&cfg, []Peer{Registry}, c.build), nil, c.args...)
		if code != ExitError || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d, %q; want %q", name, code, errs, c.want)
		}
		if strings.Count(errs, c.want) != 1 {
			t.Errorf("%s: said more than once: %q", name, errs)
		}
	}
}

func TestDaemonsFindEachOtherInAnyOrder(t *testing.T) {
	front, back := freeAddr(t), freeAddr(t)
	var cfg demoConfig
	stopFront, log := background(t, demoSpec(&cfg, []Peer{Registry}, func(env Env) (Service, error) {
		return &demo{peer: gatewayv1.NewGatewayServiceClient(env.Conn(Registry))}, nil
	}), "--listen", front, "--metrics-listen=", "--registry-addr", back, "--size=5")
	ask(t, front, rpc.TLS{}, codes.Unavailable) // it serves, though what it depends on isn't there
	for range 2 {
		var cfg demoConfig
		stopBack, _ := background(t, demoSpec(&cfg, nil, nil), "--listen", back, "--metrics-listen=")
		ask(t, front, rpc.TLS{}, codes.OK)
		if code := stopBack(); code != ExitOK {
			t.Errorf("the back ended with %d", code)
		}
		ask(t, front, rpc.TLS{}, codes.Unavailable)
	}
	if code := stopFront(); code != ExitOK {
		t.Errorf("the front ended with %d", code)
	}
	if cfg.Size != 5 {
		t.Errorf("size %d", cfg.Size)
	}
	if s := log.String(); !strings.Contains(s, "serving gRPC") || !strings.Contains(s, `reason="the test is over"`) {
		t.Errorf("log:\n%s", s)
	}
}

func TestUndeclaredPeerIsAClearError(t *testing.T) {
	addr := freeAddr(t)
	var cfg demoConfig
	background(t, demoSpec(&cfg, nil, func(env Env) (Service, error) {
		return &demo{peer: gatewayv1.NewGatewayServiceClient(env.Conn(Router))}, nil
	}), "--listen", addr, "--metrics-listen=")
	ask(t, addr, rpc.TLS{}, codes.Unimplemented)
	if _, err := (Env{}).Conn(Router).NewStream(t.Context(), nil, "x"); err == nil || !strings.Contains(err.Error(), "--router-addr") {
		t.Errorf("stream: %v", err)
	}
}

func TestTLSAndFileAndHealth(t *testing.T) {
	ca := rpctest.NewCA(t)
	cert, key := ca.Issue(t, "127.0.0.1")
	addr := freeAddr(t)
	conf := filepath.Join(t.TempDir(), "demod.yaml")
	content := fmt.Sprintf("listen: %s\nmetrics-listen: \"\"\ntls: true\ntls-ca-cert: %s\ntls-cert: %s\ntls-key: %s\nsize: 6\n", addr, ca.File, cert, key)
	if err := os.WriteFile(conf, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg demoConfig
	var got rpc.TLS
	background(t, demoSpec(&cfg, nil, func(env Env) (Service, error) {
		got = env.TLS
		return &demo{}, nil
	}), "--config", conf)
	files := rpc.TLS{Enabled: true, CACert: ca.File, Cert: cert, Key: key}
	ask(t, addr, files, codes.OK)
	if got != files || cfg.Size != 6 {
		t.Errorf("the service was built with %+v, size %d", got, cfg.Size)
	}
	conn, err := rpc.Dial(addr, rpc.ClientConfig{TLS: files})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
}

func TestEveryPeerHasItsOwnPorts(t *testing.T) {
	seen := map[string]Peer{}
	for _, p := range []Peer{Registry, Router, Resolver, NodeAgent, Gateway} {
		for _, a := range []string{p.Addr(), p.MetricsAddr()} {
			if other, taken := seen[a]; taken {
				t.Errorf("%s and %s share %s", p, other, a)
			}
			seen[a] = p
		}
	}
}

// live is a demo whose size can change.
type live struct {
	demo
	sizes chan string
}

func (l *live) Live() config.Live {
	return config.Live{"size": func(fs *pflag.FlagSet) error {
		l.sizes <- fs.Lookup("size").Value.String()
		return nil
	}}
}

func TestHangupReloadsOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demod.yaml")
	write := func(content string) { // in one step: a reload may be under way
		if err := errors.Join(os.WriteFile(path+".new", []byte(content), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	write("size: 4\n")
	var cfg demoConfig
	l := &live{sizes: make(chan string, 1)}
	spec := demoSpec(&cfg, nil, func(Env) (Service, error) { return l, nil })
	hangup := make(chan os.Signal)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs output
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, spec, Process{Args: []string{"--listen=" + freeAddr(t), "--metrics-listen=", "--config=" + path}, Stdout: &out, Stderr: &errs, Hangup: hangup})
	}()
	hangup <- syscall.SIGHUP // taken when the first load is done
	// A signal is taken when the one before has been dealt with: the second of two tells that the first has.
	reload := func(content string) {
		write(content)
		hangup <- syscall.SIGHUP
		hangup <- syscall.SIGHUP
	}
	reload("size: 5\nlog-level: debug\n")
	if size := <-l.sizes; size != "5" {
		t.Errorf("size %s", size)
	}
	reload("size: 99\n") // refused by the service's own check
	reload("size: 6\nlog-level: debug\nreflection: false\n")
	if size := <-l.sizes; size != "6" {
		t.Errorf("size %s", size)
	}
	hangup <- syscall.SIGHUP // taken when the one before is done
	cancel()
	if c := <-code; c != ExitOK {
		t.Errorf("exit code %d", c)
	}
	for _, want := range []string{"option=log-level from=info to=debug", "--size 99: want at most 9", "option=reflection running=true configured=false"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("no %q in\n%s", want, errs.String())
		}
	}
}

func TestShowConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usual.yaml")
	if err := os.WriteFile(path, []byte("size: 4\nnode-name: another daemon's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg demoConfig
	var out, errs output
	code := Run(t.Context(), demoSpec(&cfg, nil, nil), Process{
		Args: []string{"--show-config", "--reflection=false"}, Environ: []string{"AX_LOG_LEVEL=warn"}, Stdout: &out, Stderr: &errs, ConfigFile: path,
	})
	fields := strings.Join(strings.Fields(out.String()), " ")
	if code != ExitOK || errs.String() != "" {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
	for _, want := range []string{"size 4 " + path + ":1", "reflection false flag", "log-level warn AX_LOG_LEVEL", "tls false default"} {
		if !strings.Contains(fields, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
