package rpc

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/rpc/rpctest"
	gatewayv1 "appswitch.io/proto/gen/appswitch/gateway/v1"
	"github.com/spf13/pflag"
)

func tlsFor(t *testing.T, ca *rpctest.CA, hosts ...string) TLS {
	t.Helper()
	cert, key := ca.Issue(t, hosts...)
	return TLS{Enabled: true, CACert: ca.File, Cert: cert, Key: key}
}

func TestMutualTLS(t *testing.T) {
	ca, otherCA := rpctest.NewCA(t), rpctest.NewCA(t)
	server := tlsFor(t, ca, "127.0.0.1", "localhost")
	l, dialPipe := Pipe()
	s := start(t, ServerConfig{TLS: server}, "127.0.0.1:0", doors{}, table{}, l)
	_, port, _ := strings.Cut(s.addr, ":")
	stranger := tlsFor(t, otherCA, "127.0.0.1")
	stranger.CACert = ca.File // it trusts the server; the server doesn't know it
	foreign := tlsFor(t, ca, "127.0.0.1")
	foreign.CACert = otherCA.File
	for name, c := range map[string]struct {
		target string
		tls    TLS
		ok     bool
	}{
		"by address":          {s.addr, tlsFor(t, ca, "client"), true},
		"by name":             {"localhost:" + port, tlsFor(t, ca, "client"), true},
		"plaintext":           {s.addr, TLS{}, false},
		"client of other CA":  {s.addr, stranger, false},
		"client trusts other": {s.addr, foreign, false},
	} {
		if err := list(t, gatewayAt(t, c.target, ClientConfig{TLS: c.tls})); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	// In the process there is nothing to encrypt.
	c, err := dialPipe(ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := list(t, gatewayv1.NewGatewayServiceClient(c)); err != nil {
		t.Errorf("over the pipe: %v", err)
	}
	if s.log.count("neither encrypted") != 0 {
		t.Error("warned about plaintext")
	}
}

func TestServerMustBearTheNameThatWasDialled(t *testing.T) {
	ca := rpctest.NewCA(t)
	client := tlsFor(t, ca, "client")
	s := start(t, ServerConfig{TLS: tlsFor(t, ca, "10.9.8.7", "elsewhere")}, "127.0.0.1:0", doors{}, table{})
	if err := list(t, gatewayAt(t, s.addr, ClientConfig{TLS: client})); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("got %v, want an error that names 127.0.0.1", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := rpctest.NewCA(t)
	s := start(t, ServerConfig{TLS: tlsFor(t, ca, "127.0.0.1")}, "127.0.0.1:0", doors{}, table{})
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}) // that is the test
	if err == nil {
		_ = conn.Close()
		t.Fatal("TLS 1.2 was accepted")
	}
	if !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v", err)
	}
}

func TestCertificatesAreReadAgainWhenTheyChange(t *testing.T) {
	oldCA, newCA := rpctest.NewCA(t), rpctest.NewCA(t)
	dir := t.TempDir()
	files := TLS{Enabled: true, CACert: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	install := func(ca *rpctest.CA) {
		t.Helper()
		pem, err := os.ReadFile(ca.File)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.CACert, pem, 0o600); err != nil {
			t.Fatal(err)
		}
		ca.IssueTo(t, files.Cert, files.Key, "127.0.0.1")
	}
	install(oldCA)
	s := start(t, ServerConfig{TLS: files}, "127.0.0.1:0", doors{}, table{})
	if err := list(t, gatewayAt(t, s.addr, ClientConfig{TLS: tlsFor(t, oldCA, "c")})); err != nil {
		t.Fatal(err)
	}
	// While the files are unusable the old ones serve.
	if err := os.WriteFile(files.Key, []byte("half a k"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(tlsCheckEvery + 100*time.Millisecond)
	if err := list(t, gatewayAt(t, s.addr, ClientConfig{TLS: tlsFor(t, oldCA, "c")})); err != nil {
		t.Errorf("with a broken key file: %v", err)
	}
	install(newCA)
	time.Sleep(tlsCheckEvery + 100*time.Millisecond)
	if err := list(t, gatewayAt(t, s.addr, ClientConfig{TLS: tlsFor(t, newCA, "c")})); err != nil {
		t.Errorf("with the new CA: %v", err)
	}
	if err := list(t, gatewayAt(t, s.addr, ClientConfig{TLS: tlsFor(t, oldCA, "c")})); err == nil {
		t.Error("the old CA is still trusted")
	}
	if s.log.count("keep using the previous") != 1 {
		t.Errorf("the broken file is not in the log once:\n%s", s.log)
	}
}

func TestTLSOptionsSayWhatIsWrong(t *testing.T) {
	ca := rpctest.NewCA(t)
	good := tlsFor(t, ca, "x")
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, edit := range map[string]func(*TLS){
		"--tls needs --tls-cert FILE":              func(c *TLS) { c.Cert = "" },
		"--tls needs --tls-ca-cert FILE":           func(c *TLS) { c.CACert = "" },
		"--tls-key " + good.Key + " has no effect": func(c *TLS) { *c = TLS{Key: good.Key} },
		"/nowhere/ca": func(c *TLS) { c.CACert = "/nowhere/ca" },
		"--tls-ca-cert " + junk + ": no PEM certificate": func(c *TLS) { c.CACert = junk },
		"--tls-key " + junk: func(c *TLS) { c.Key = junk },
	} {
		files := good
		edit(&files)
		log, _ := newLog()
		if _, err := NewServer(ServerConfig{Log: log, TLS: files}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("server: got %v, want %q", err, want)
		}
		if _, err := Dial("127.0.0.1:1", ClientConfig{TLS: files}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("client: got %v, want %q", err, want)
		}
	}
}

func TestTLSFlags(t *testing.T) {
	var c TLS
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.Flags(fs)
	if err := fs.Parse([]string{"--tls", "--tls-ca-cert=a", "--tls-cert=b", "--tls-key=c"}); err != nil {
		t.Fatal(err)
	}
	if c != (TLS{Enabled: true, CACert: "a", Cert: "b", Key: "c"}) {
		t.Errorf("got %+v", c)
	}
}
