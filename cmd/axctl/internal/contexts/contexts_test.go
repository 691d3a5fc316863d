package contexts

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "appswitch", "config.yaml")
	if f, err := Load(path); err != nil || !reflect.DeepEqual(f, File{}) {
		t.Fatalf("no file: got %+v, %v", f, err)
	}
	var f File
	for _, c := range []Context{
		{Name: "prod", Server: "https://10.0.0.5:6664", TLS: Files{"/ca", "/cert", "/key"}},
		{Name: "lab", Server: "10.0.0.6:6664"},
	} {
		if replaced, err := f.Set(c); err != nil || replaced {
			t.Fatalf("Set(%v) = %v, %v", c, replaced, err)
		}
	}
	f.Current = "prod"
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, f) || strings.Join(got.Names(), ",") != "lab,prod" {
		t.Fatalf("got %+v, %v, want %+v", got, err, f)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: want 0600", info.Mode(), err)
	}
	if replaced, err := got.Set(Context{Name: "lab", Server: "x:1"}); err != nil || !replaced || len(got.Contexts) != 2 {
		t.Errorf("replace: %v, %v, %+v", replaced, err, got)
	}
	if got.Delete("nosuch") || !got.Delete("prod") || got.Current != "" || len(got.Contexts) != 1 {
		t.Errorf("after delete: %+v", got)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"contexts: [{name: a, server: b, colour: blue}]": `unknown field "colour"`,
		"current: a":                           `unknown field "current"`,
		"current-context: a":                   `current-context "a" is not one of the contexts`,
		"contexts: [{server: b}]":              `context name "": want`,
		"contexts: [{name: 'a b', server: b}]": `context name "a b": want`,
		"contexts: [{name: a}]":                `context "a": server is missing`,
		"contexts: [{name: a, server: b}, {name: a, server: c}]":                 `context "a" is there twice`,
		"contexts: [{name: a, server: b, tls: {ca-cert: /x}}]":                   "TLS needs ca-cert, cert and key",
		"contexts: [{name: a, server: b, tls: {ca-cert: x, cert: /c, key: /k}}]": `TLS file "x": want an absolute name`,
		"contexts: {":                     "did not find",
		"# " + strings.Repeat("x", 1<<20): "larger than",
	} {
		if f, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %+v, %v, want %q", text, f, err, want)
		}
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}

// FuzzDecode: what is accepted can be used, and is the same after it was written and read again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("current-context: a\ncontexts: [{name: a, server: b, tls: {ca-cert: /x, cert: /y, key: /z}}]"))
	f.Add([]byte("contexts: {"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode(data)
		if err != nil {
			return
		}
		for _, c := range file.Contexts {
			if err := c.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}
