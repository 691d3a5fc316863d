package main

import (
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"appswitch.io/internal/rpc"
	"appswitch.io/internal/rpc/rpctest"
)

// TestRemoteDaemon talks to a daemon over mutual TLS, in each way in which one can be named.
func TestRemoteDaemon(t *testing.T) {
	ca, stranger := rpctest.NewCA(t), rpctest.NewCA(t)
	cert, key := ca.Issue(t, "127.0.0.1")
	cfg, err := rpc.ServerTLS(rpc.TLS{Enabled: true, CACert: ca.File, Cert: cert, Key: key}, nil, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := newFakeDaemon(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	rest, err := daemon.rest(nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(rest)
	server.TLS = cfg
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "https://")

	cert, key = ca.Issue(t, "client")
	files := []string{"--tls-ca-cert", ca.File, "--tls-cert", cert, "--tls-key", key}
	home := []string{"XDG_CONFIG_HOME=" + t.TempDir()}
	if r := run(t, home, append([]string{"config", "set-context", "prod", "--server", server.URL}, files...)...); r.code != 0 {
		t.Fatalf("set-context: %+v", r)
	}
	if r := run(t, home, "config", "set-context", "other", "--server", "127.0.0.1:1"); r.code != 0 {
		t.Fatalf("set-context: %+v", r)
	}
	environment := []string{"AX_SERVER=" + address, "AX_TLS=true", "AX_TLS_CA_CERT=" + ca.File, "AX_TLS_CERT=" + cert, "AX_TLS_KEY=" + key}
	foreign := []string{"--tls-ca-cert", stranger.File, "--tls-cert", cert, "--tls-key", key}
	for name, c := range map[string]struct {
		env  []string
		args []string
		want string // of the error; empty: it works
	}{
		"URL":               {nil, append([]string{"--server", server.URL}, files...), ""},
		"address":           {nil, append([]string{"--tls", "--server", address}, files...), ""},
		"environment":       {environment, nil, ""},
		"context":           {home, []string{"--context", "prod"}, ""},
		"context variable":  {append(home, "AX_CONTEXT=prod"), nil, ""},
		"flag wins":         {append(home, "AX_SERVER=127.0.0.1:1"), []string{"--context", "prod"}, ""},
		"another context":   {home, []string{"--context", "other"}, "not running at http://127.0.0.1:1"},
		"server wins":       {append(home, "AX_CONTEXT=prod"), []string{"--server", "127.0.0.1:2"}, "not running at http://127.0.0.1:2"},
		"both":              {home, []string{"--context", "prod", "--server", server.URL}, "leave one of them out"},
		"unknown context":   {home, []string{"--context", "prdo"}, `no context "prdo": did you mean prod?`},
		"plaintext":         {nil, []string{"--server", address}, "speaks TLS: call it as https://" + address},
		"no certificate":    {nil, []string{"--server", server.URL}, "can't be trusted"},
		"another authority": {nil, append([]string{"--server", server.URL}, foreign...), "can't be trusted"},
		"files are missing": {nil, []string{"--server", server.URL, "--tls-ca-cert", ca.File}, "--tls needs --tls-cert FILE"},
		"no such file":      {nil, []string{"--server", server.URL, "--tls-ca-cert", "/nonexistent/ca", "--tls-cert", cert, "--tls-key", key}, "/nonexistent/ca: no such file"},
		"without TLS":       {nil, []string{"--server", "http://" + address, "--tls-cert", cert}, "no effect without --tls"},
	} {
		r := run(t, c.env, append([]string{"get", "nodes"}, c.args...)...)
		if (r.code == 0) != (c.want == "") || !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") > 2 {
			t.Errorf("%s: got %+v, want %q", name, r, c.want)
		}
	}
}
