package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
	"appswitch.io/internal/rpc"
	"appswitch.io/internal/rpc/rpctest"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	routerv1 "appswitch.io/proto/gen/appswitch/router/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"appswitch.io/services/gateway/internal/doors"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newDeps returns dependencies whose backends are away.
func newDeps(t *testing.T) Deps {
	t.Helper()
	conn, err := rpc.Dial("127.0.0.1:1", rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	reg := prometheus.NewRegistry()
	return Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: reg, Gatherer: reg,
		Registry: registryv1.NewRegistryServiceClient(conn), NodeAgent: nodeagentv1.NewNodeAgentServiceClient(conn), Router: routerv1.NewRouterServiceClient(conn),
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int(netip.MustParseAddrPort(l.Addr().String()).Port())
}

// inBackground runs f until the test ends.
func inBackground(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("it did not stop")
		}
	})
}

func TestFlags(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse([]string{"--rest-port=8064", "--rest-listen=127.0.0.1,::1"}); err != nil {
		t.Fatal(err)
	}
	if cfg.RESTPort != 8064 || len(cfg.RESTListen) != 2 || cfg.Validate() != nil {
		t.Errorf("got %+v, %v", cfg, cfg.Validate())
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for want, edit := range map[string]func(*Config, *Deps){
		"--rest-port 0":                   func(c *Config, _ *Deps) { c.RESTPort = 0 },
		"--rest-port 65536":               func(c *Config, _ *Deps) { c.RESTPort = 65536 },
		`--rest-listen "eth0"`:            func(c *Config, _ *Deps) { c.RESTListen = []string{"127.0.0.1", "eth0"} },
		"--rest-listen: want at least":    func(c *Config, _ *Deps) { c.RESTListen = nil },
		"--rest-listen 0.0.0.0: anyone":   func(c *Config, _ *Deps) { c.RESTListen = []string{"0.0.0.0"} },
		"clients of registry, node agent": func(_ *Config, d *Deps) { d.Router = nil },
		"--tls needs --tls-ca-cert FILE":  func(_ *Config, d *Deps) { d.TLS.Enabled = true },
		"duplicate metrics collector":     func(_ *Config, d *Deps) { _, _ = New(DefaultConfig(), *d) },
	} {
		cfg, deps := DefaultConfig(), newDeps(t)
		edit(&cfg, &deps)
		if _, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestDoorsOverGRPC(t *testing.T) {
	s, err := New(DefaultConfig(), newDeps(t))
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.Register(server)
	lis, dial := rpc.Pipe()
	inBackground(t, func(ctx context.Context) error { return rpc.Serve(ctx, server, lis) })
	conn, err := dial(rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := gatewayv1.NewGatewayServiceClient(conn)
	proxies, err := c.ListProxies(t.Context(), &gatewayv1.ListProxiesRequest{})
	if err != nil || len(proxies.GetProxies()) != 0 {
		t.Errorf("at first: %v, %v", proxies, err)
	}
	at := netip.MustParseAddrPort
	if _, _, err := s.doors.AddProxy(doors.Proxy{Protocol: ax.TCP, Listener: at("10.0.2.15:8080"), Dialers: []netip.AddrPort{at("10.0.2.16:80")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.doors.AddExpose(doors.Expose{Protocol: ax.UDP, Node: at("10.0.2.15:53"), Service: at("1.1.1.1:53")}); err != nil {
		t.Fatal(err)
	}
	proxies, err = c.ListProxies(t.Context(), &gatewayv1.ListProxiesRequest{})
	addr := func(ip string, port uint32) *typev1.SocketAddress { return &typev1.SocketAddress{Ip: ip, Port: port} }
	want := &gatewayv1.ListProxiesResponse{Proxies: []*gatewayv1.Proxy{{Id: 1, Protocol: typev1.Protocol_PROTOCOL_TCP, Listener: addr("10.0.2.15", 8080), Dialers: []*typev1.SocketAddress{addr("10.0.2.16", 80)}}}}
	if err != nil || !proto.Equal(proxies, want) {
		t.Errorf("got %v, %v", proxies, err)
	}
	exposes, err := c.ListExposes(t.Context(), &gatewayv1.ListExposesRequest{})
	wantExposes := &gatewayv1.ListExposesResponse{Exposes: []*gatewayv1.Expose{{Protocol: typev1.Protocol_PROTOCOL_UDP, NodeAddress: addr("10.0.2.15", 53), ServiceAddress: addr("1.1.1.1", 53)}}}
	if err != nil || !proto.Equal(exposes, wantExposes) {
		t.Errorf("got %v, %v", exposes, err)
	}
}

// get calls until the server is there.
func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			if time.Now().After(until) || !strings.Contains(err.Error(), "refused") {
				return 0, err.Error()
			}
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func TestRESTOnLoopback(t *testing.T) {
	cfg := Config{RESTPort: freePort(t), RESTListen: []string{"127.0.0.1"}}
	s, err := New(cfg, newDeps(t))
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, s.Run)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://127.0.0.1:" + strconv.Itoa(cfg.RESTPort)
	if code, body := get(t, client, url+"/v1/proxies"); code != 200 || !strings.Contains(body, `"proxies"`) {
		t.Errorf("proxies: %d %s", code, body)
	}
	if code, body := get(t, client, url+"/v1/apps"); code != 503 || !strings.Contains(body, "the registry is not available") {
		t.Errorf("apps: %d %s", code, body)
	}
}

func TestRESTBeyondLoopbackWantsCertificates(t *testing.T) {
	ca, otherCA := rpctest.NewCA(t), rpctest.NewCA(t)
	cert, key := ca.Issue(t, "127.0.0.1")
	deps := newDeps(t)
	deps.TLS = rpc.TLS{Enabled: true, CACert: ca.File, Cert: cert, Key: key}
	cfg := Config{RESTPort: freePort(t), RESTListen: []string{"0.0.0.0"}}
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, s.Run)
	client := func(ca *rpctest.CA) *http.Client {
		pem, err := os.ReadFile(deps.TLS.CACert)
		if err != nil {
			t.Fatal(err)
		}
		c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
		c.RootCAs.AppendCertsFromPEM(pem)
		if ca != nil {
			certFile, keyFile := ca.Issue(t, "caller")
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c}}
	}
	url := "https://127.0.0.1:" + strconv.Itoa(cfg.RESTPort) + "/v1/proxies"
	if code, body := get(t, client(ca), url); code != 200 {
		t.Errorf("with a certificate: %d %s", code, body)
	}
	if code, body := get(t, client(nil), url); code == 200 {
		t.Errorf("without a certificate: %d %s", code, body)
	}
	if code, body := get(t, client(otherCA), url); code == 200 {
		t.Errorf("with another CA's certificate: %d %s", code, body)
	}
	if code, _ := get(t, http.DefaultClient, strings.Replace(url, "https", "http", 1)); code == 200 {
		t.Error("plaintext was served")
	}
	http.DefaultClient.CloseIdleConnections()
}
