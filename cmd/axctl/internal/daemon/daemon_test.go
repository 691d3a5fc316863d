package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"appswitch.io/internal/config"
	"appswitch.io/services/nodeagent/launch/wire"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// freePorts finds ports of loopback that nobody has.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// options are those of a daemon that meets no other on this machine.
func options(t *testing.T, dir string, more ...string) *Options {
	t.Helper()
	ports := freePorts(t, 4)
	o := DefaultOptions()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.Flags(fs)
	args := append([]string{
		"--node-name=node1", "--node-interface=127.0.0.1", "--etcd-unsafe-no-fsync",
		"--state-dir=" + filepath.Join(dir, "state"), "--run-dir=" + filepath.Join(dir, "run"),
		fmt.Sprintf("--grpc-listen=127.0.0.1:%d", ports[0]), fmt.Sprintf("--rest-port=%d", ports[1]),
		fmt.Sprintf("--metrics-listen=127.0.0.1:%d", ports[2]), fmt.Sprintf("--dns-port=%d", ports[3]),
	}, more...)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	return o
}

// log is what a daemon writes, while it writes.
type log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// running is a daemon in this process.
type running struct {
	log    log
	cancel context.CancelCauseFunc
	err    chan error
}

func start(t *testing.T, o *Options) *running {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &running{cancel: cancel, err: make(chan error, 1)}
	go func() { r.err <- Run(ctx, o, &r.log) }()
	t.Cleanup(func() { cancel(nil) })
	deadline := time.After(30 * time.Second)
	for !strings.Contains(r.log.String(), "msg=ready") {
		select {
		case err := <-r.err:
			t.Fatalf("ended while starting: %v\n%s", err, r.log.String())
		case <-deadline:
			t.Fatalf("not ready:\n%s", r.log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	begin := time.Now()
	r.cancel(&SignalError{Name: "terminated"})
	select {
	case err := <-r.err:
		if err != nil {
			t.Errorf("stop: %v\n%s", err, r.log.String())
		}
	case <-time.After(2 * StopTimeout):
		t.Fatalf("did not stop:\n%s", r.log.String())
	}
	if took := time.Since(begin); took > StopTimeout {
		t.Errorf("stopping took %s", took)
	}
	if !strings.Contains(r.log.String(), "msg=stopped") || strings.Contains(r.log.String(), "level=ERROR") {
		t.Errorf("the log:\n%s", r.log.String())
	}
}

// call makes a REST call and decodes its JSON.
func call(t *testing.T, method, url, body string) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %s", method, url, resp.Status, err, data)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		out = map[string]any{"text": string(data)}
	}
	return out
}

func TestDaemon(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir)
	rest := "http://" + o.restAddrs()[0]
	d := start(t, o)

	// The agent enters its node once it serves.
	var nodes string
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(nodes, "name:") && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		nodes = fmt.Sprint(call(t, "GET", rest+"/v1/nodes", "")["nodes"])
	}
	for _, want := range []string{"name:node1", "ip:127.0.0.1", "cluster:appswitch", fmt.Sprint(o.Gateway.RESTPort)} {
		if !strings.Contains(nodes, want) {
			t.Errorf("no %s in %s", want, nodes)
		}
	}
	call(t, "POST", rest+"/v1/vservices", `{"name":"web","ip":"1.1.1.1","backends":["2.2.2.2"]}`)
	if health := call(t, "GET", "http://"+o.Telemetry.MetricsListen+"/healthz", ""); health["text"] != "ok\n" {
		t.Errorf("health: %v", health)
	}

	// Another daemon is refused before it does anything.
	again := options(t, dir)
	if err := Run(context.Background(), again, io.Discard); err == nil || !strings.Contains(err.Error(), "already (process ") {
		t.Errorf("a second daemon in the same directory: %v", err)
	}
	elsewhere := options(t, t.TempDir(), "--grpc-listen="+o.GRPCListen)
	if err := Run(context.Background(), elsewhere, io.Discard); err == nil || !strings.Contains(err.Error(), "--grpc-listen: ") {
		t.Errorf("a second daemon on the same port: %v", err)
	}
	d.stop(t)

	// The next one, in another place, finds what this one kept.
	o = options(t, dir)
	d = start(t, o)
	services := fmt.Sprint(call(t, "GET", "http://"+o.restAddrs()[0]+"/v1/vservices", "")["virtualServices"])
	if !strings.Contains(services, "name:web") {
		t.Errorf("the virtual service is lost: %s", services)
	}
	d.stop(t)
}

func TestDaemonEndsWithItsParts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, tc := range []struct {
		option string
		want   []string
	}{
		{fmt.Sprintf("--rest-port=%d", port), []string{"gateway: ", "--rest-port"}},
		{fmt.Sprintf("--metrics-listen=127.0.0.1:%d", port), []string{"telemetry: ", "--metrics-listen"}},
		{"--node-interface=nosuch0", []string{"--node-interface", "nosuch0"}},
		{"--cpu-profile=/nosuch/file", []string{"--cpu-profile", "/nosuch/file"}},
		{"--rest-listen=192.0.2.1", []string{"--rest-listen 192.0.2.1"}},
	} {
		t.Run(tc.option, func(t *testing.T) {
			var l log
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			err := Run(ctx, options(t, t.TempDir(), tc.option), &l)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("got %v\n%s", err, l.String())
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
}

// TestAgentDoesWithoutRegistry: programs are served, late but surely, when etcd can't be reached.
func TestAgentDoesWithoutRegistry(t *testing.T) {
	o := options(t, t.TempDir(), "--etcd-endpoints=127.0.0.1:1")
	socket := filepath.Join(o.NodeAgent.RunDir, wire.SocketName)
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &running{cancel: cancel, err: make(chan error, 1)}
	begin := time.Now()
	go func() { r.err <- Run(ctx, o, &r.log) }()
	for {
		conn, err := net.Dial("unixpacket", socket)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Since(begin) > 3*backendsWait {
			t.Fatalf("no agent: %v\n%s", err, r.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
	if waited := time.Since(begin); waited < backendsWait {
		t.Errorf("the agent did not wait for routes and names: %s", waited)
	}
	if strings.Contains(r.log.String(), "msg=ready") {
		t.Errorf("ready without a registry:\n%s", r.log.String())
	}
	r.stop(t)
}

func TestOptions(t *testing.T) {
	complete := func(environ []string, args ...string) (*Options, error) {
		o := DefaultOptions()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.Flags(fs)
		if err := fs.Parse(args); err != nil {
			return o, err
		}
		_, err := config.Load(fs, config.Options{Environ: environ})
		return o, errors.Join(err, o.Complete())
	}
	for _, tc := range []struct {
		name    string
		environ []string
		args    []string
		want    string
	}{
		{name: "kernel driver", args: []string{"--driver", "kernel"}, want: `--driver "kernel"`},
		{name: "gRPC address", args: []string{"--grpc-listen", "6665"}, want: `--grpc-listen "6665"`},
		{name: "TLS without files", args: []string{"--tls"}, want: "--tls needs --tls-ca-cert"},
		{name: "ports", args: []string{"--ports", "x"}, want: "--ports"},
		{name: "DNS servers", args: []string{"--dns-servers", "nowhere"}, want: "--dns-servers"},
		{name: "several at once", environ: []string{"AX_REST_PORT=0"}, args: []string{"--ports", "x"}, want: "--rest-port 0"},
		{name: "not built yet", environ: []string{"AX_NEIGHBORS=10.0.0.1"}, want: "AX_NEIGHBORS"},
		{name: "slip", environ: []string{"AX_NODENAME=x"}, want: "did you mean AX_NODE_NAME?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := complete(tc.environ, tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}

	o, err := complete([]string{"AX_NEIGHBORS=", "AX_OPTS=--clean --dns-domain=example.org", "AX_REST_PORT=7000"}, "--state-dir", "/x/y", "--grpc-listen", "127.0.0.1:7001")
	if err != nil {
		t.Fatal(err)
	}
	if !o.NodeAgent.Clean || o.Registry.StateDir != "/x/y/registry" || o.NodeAgent.StateDir != "/x/y/agent" {
		t.Errorf("got %+v", o)
	}
	if o.Resolver.Domain != "example.org" || o.Router.DNSDomain != "example.org" || o.NodeAgent.DNSDomain != "example.org" {
		t.Errorf("the domain is not everywhere: %q, %q, %q", o.Resolver.Domain, o.Router.DNSDomain, o.NodeAgent.DNSDomain)
	}
	reserved := fmt.Sprint(o.NodeAgent.ReservedPorts)
	for _, port := range []string{"7000", "7001", "6666", "6664"} {
		if !strings.Contains(reserved, port) {
			t.Errorf("port %s is not reserved: %s", port, reserved)
		}
	}
	want := DefaultOptions().NodeAgent.StateDir
	if os.Geteuid() != 0 {
		want = filepath.Join(DefaultOptions().StateDir, "agent")
	}
	if o, err = complete(nil); err != nil || o.NodeAgent.StateDir != want {
		t.Errorf("defaults: agent state in %s, %v, want %s", o.NodeAgent.StateDir, err, want)
	}
}
