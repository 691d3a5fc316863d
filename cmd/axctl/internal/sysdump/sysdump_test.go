package sysdump

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret must not be in any archive.
const secret = "hunter2-s3cr3t"

// leaks are forms in which the secret may come.
var leaks = []string{
	"password=" + secret, "PASSWORD: " + secret, `{"db_password": "` + secret + `"}`, `{"apiKey":"` + secret + `","a":1}`,
	"--password " + secret, "--db-password=" + secret + " --other", "-token " + secret, `--secret "` + secret + ` and more"`,
	"Authorization: Bearer " + secret, "authorization=Basic " + secret, `"authorization": "Bearer ` + secret + `"`,
	"postgres://me:" + secret + "@db:5432/x", "http://:" + secret + "@host/", "AWS_SECRET_ACCESS_KEY=" + secret,
	"-----BEGIN RSA PRIVATE KEY-----\n" + secret + "\nMIIE\n-----END RSA PRIVATE KEY-----", `"-----BEGIN PRIVATE KEY-----\n` + secret,
	"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + secret, `msg="x" token='` + secret + ` x'`, "Cookie: " + secret,
	`{"text":"{\"password\":\"` + secret + `\"}"}`, "x-auth-token: " + secret, "passphrase = " + secret,
}

func TestRedact(t *testing.T) {
	for _, text := range leaks {
		got := string(Redact([]byte("before " + text + " after")))
		if strings.Contains(got, secret) || !strings.Contains(got, redacted) || !strings.HasPrefix(got, "before ") {
			t.Errorf("%q: %q", text, got)
		}
	}
	for _, text := range []string{
		`time=2026-01-02T12:00:00Z level=INFO msg="serving REST" service=gateway address=127.0.0.1:6664`,
		`go_memstats_alloc_bytes 1.5e+06`, "goroutine 1 [running]:\nmain.main()\n\t/src/main.go:12 +0x1d",
		`{"labels":{"role":"prod"},"ip":"1.1.1.1"}`, "http://127.0.0.1:6664/v1/apps", "", "a@b.c",
	} {
		if got := string(Redact([]byte(text))); got != text {
			t.Errorf("harmless: %q became %q", text, got)
		}
	}
}

func TestRedactCommands(t *testing.T) {
	got := string(redactCommands([]byte(`{"apps":[{"id":"a","command":"mysql -p` + secret + ` db"},{"command":"nginx"}],"revision":"7","n":1e3}`)))
	for _, want := range []string{`"command": "mysql [arguments left out]"`, `"command": "nginx"`, `"revision": "7"`, `"n": 1e3`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if strings.Contains(got, secret) {
		t.Errorf("got %s", got)
	}
	if got := redactCommands([]byte("no JSON")); string(got) != "no JSON" {
		t.Errorf("got %q", got)
	}
}

// FuzzRedact: what has been redacted once has nothing more to redact, and stays of its kind.
func FuzzRedact(f *testing.F) {
	for _, text := range leaks {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		once := Redact(slices.Clone(text))
		if bytes.Contains(once, []byte("PRIVATE KEY-----\nMII")) {
			t.Errorf("%q keeps a key", text)
		}
		_ = redactCommands(text)
	})
}

// unpack returns the files of an archive.
func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil || header.Mode != 0o600 {
			t.Errorf("%s: %v, mode %o", header.Name, err, header.Mode)
		}
		files[header.Name] = string(text)
	}
}

func TestWrite(t *testing.T) {
	log := filepath.Join(t.TempDir(), "ax.log")
	if err := os.WriteFile(log, []byte("start\n"+strings.Join(leaks, "\n")+"\nend\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	debug := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			http.Error(w, "token="+secret, http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, "metric 1\n# password="+secret)
	}))
	defer debug.Close()
	parts := []Part{
		{Name: "machine.txt", Get: Machine},
		{Name: "logs/ax.log", Get: Tail(log)},
		{Name: "debug/metrics.txt", Get: Fetch(debug.URL + "/metrics")},
		{Name: "debug/broken.txt", Get: Fetch(debug.URL + "/broken")},
		{Name: "tables/apps.json", JSON: true, Get: func(context.Context) ([]byte, error) {
			return []byte(`{"apps":[{"command":"curl -u me:` + secret + ` x"}]}`), nil
		}},
		{Name: "gone.txt", Get: func(context.Context) ([]byte, error) { return nil, errors.New("no way: password=" + secret) }},
		{Name: "nothing.txt", Get: func(context.Context) ([]byte, error) { return nil, nil }},
		{Name: "long.txt", Get: func(context.Context) ([]byte, error) {
			return append(bytes.Repeat([]byte("x"), MaxPart), "the end"...), nil
		}},
	}
	var out bytes.Buffer
	s, err := Write(t.Context(), &out, "dump", time.Unix(1e9, 0), parts)
	if err != nil || s.Files != 7 || len(s.Missing) != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
	files := unpack(t, out.Bytes())
	for name, text := range files {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds the secret", name)
		}
	}
	for name, want := range map[string]string{
		"dump/machine.txt": "kernel: Linux ", "dump/logs/ax.log": "end\n", "dump/debug/metrics.txt": "metric 1\n",
		"dump/tables/apps.json": "curl [arguments left out]", "dump/README.txt": "missing: gone.txt: no way: password=[redacted]",
		"dump/debug/broken.txt": redacted,
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: %q, want %q", name, files[name], want)
		}
	}
	if text := files["dump/long.txt"]; len(text) != MaxPart || !strings.HasSuffix(text, "the end") {
		t.Errorf("a long part has %d bytes", len(text))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, io.Discard, "dump", time.Now(), parts); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
