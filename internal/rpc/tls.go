package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/pflag"
)

// TLS says how peers prove who they are: with certificates of one CA, in both directions, under TLS 1.3.
// The zero value means plaintext.
type TLS struct {
	Enabled bool
	CACert  string // file, PEM: the only CA that is trusted
	Cert    string // file, PEM: this daemon's certificate, for serving and for calling
	Key     string // file, PEM
}

// Flags adds --tls and the three files.
func (t *TLS) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&t.Enabled, "tls", t.Enabled, "encrypt and authenticate everything between daemons with mutual TLS 1.3")
	fs.StringVar(&t.CACert, "tls-ca-cert", t.CACert, "file with the CA certificate that peers must be signed by (PEM)")
	fs.StringVar(&t.Cert, "tls-cert", t.Cert, "file with this daemon's certificate (PEM)")
	fs.StringVar(&t.Key, "tls-key", t.Key, "file with the key of --tls-cert (PEM)")
}

// Validate reports files that are missing from the configuration.
func (t TLS) Validate() error {
	files := []struct{ flag, value string }{{"--tls-ca-cert", t.CACert}, {"--tls-cert", t.Cert}, {"--tls-key", t.Key}}
	for _, f := range files {
		if t.Enabled && f.value == "" {
			return fmt.Errorf("--tls needs %s FILE", f.flag)
		}
		if !t.Enabled && f.value != "" {
			return fmt.Errorf("%s %s has no effect without --tls: add --tls", f.flag, f.value)
		}
	}
	return nil
}

// tlsCheckEvery bounds how often the files are looked at; a new certificate is in use that much later.
const tlsCheckEvery = time.Second

// keyring reads the files of a TLS configuration and reads them again when they change.
type keyring struct {
	files TLS
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	checked time.Time
	stamps  [3]stamp
	cert    *tls.Certificate
	roots   *x509.CertPool
	failed  string // why the last reload failed; the previous certificates stay in use
}

// stamp tells one version of a file from another.
type stamp struct {
	mod  time.Time
	size int64
}

func newKeyring(files TLS, log *slog.Logger) (*keyring, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &keyring{files: files, log: log}
	if err := files.Validate(); err != nil {
		return nil, err
	}
	if !files.Enabled {
		return nil, errors.New("TLS is off: add --tls")
	}
	if err := k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *keyring) load() error {
	stamps := [3]stamp{}
	for i, f := range []string{k.files.CACert, k.files.Cert, k.files.Key} {
		fi, err := os.Stat(f)
		if err != nil {
			return fmt.Errorf("TLS file: %w", err)
		}
		stamps[i] = stamp{fi.ModTime(), fi.Size()}
	}
	if k.cert != nil && stamps == k.stamps {
		return nil
	}
	pem, err := os.ReadFile(k.files.CACert)
	if err != nil {
		return fmt.Errorf("--tls-ca-cert: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--tls-ca-cert %s: no PEM certificate in it", k.files.CACert)
	}
	cert, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	if err != nil {
		return fmt.Errorf("--tls-cert %s, --tls-key %s: %w", k.files.Cert, k.files.Key, err)
	}
	k.stamps, k.cert, k.roots = stamps, &cert, roots
	return nil
}

// current returns certificate and CA of now. While new files are unreadable or incomplete (half-written by whoever
// renews them) the previous ones stay in use.
func (k *keyring) current() (*tls.Certificate, *x509.CertPool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); now.Sub(k.checked) >= tlsCheckEvery {
		k.checked = now
		failed := ""
		if err := k.load(); err != nil {
			failed = err.Error()
		}
		if failed != "" && failed != k.failed {
			k.log.Warn("TLS files can't be used: keep using the previous ones", "error", failed)
		}
		k.failed = failed
	}
	return k.cert, k.roots
}

// server returns a configuration for one handshake, as the files are now.
func (k *keyring) server() *tls.Config {
	cert, roots := k.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{*cert}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

// ServerTLS returns a configuration for servers of other protocols (protos, as in ALPN) that asks callers for a
// certificate of the CA and reads the files again when they change.
func ServerTLS(files TLS, log *slog.Logger, protos ...string) (*tls.Config, error) {
	k, err := newKeyring(files, log)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := k.server()
			c.NextProtos = protos
			return c, nil
		},
	}, nil
}

// client returns a configuration for one handshake, as the files are now.
func (k *keyring) client() *tls.Config {
	cert, roots := k.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{*cert}, RootCAs: roots,
	}
}

// ClientTLS returns a configuration for clients of other protocols (protos, as in ALPN). They show the certificate and
// trust the CA that the files hold now.
func ClientTLS(files TLS, protos ...string) (*tls.Config, error) {
	k, err := newKeyring(files, nil)
	if err != nil {
		return nil, err
	}
	c := k.client()
	c.NextProtos = protos
	return c, nil
}
