package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestOriginsNameTheSource(t *testing.T) {
	yaml := file(t, "c.yaml", "# a comment\nnode-name: from-file\n\nports: [1, 2]\n")
	json := file(t, "c.json", "{\"node-name\": \"x\",\n \"ports\": [\"1\"]}")
	toml := file(t, "c.toml", "node-name = \"x\"\n")
	for _, c := range []struct {
		name string
		args []string
		env  []string
		flag string
		want string
	}{
		{"default", nil, nil, "node-name", ""},
		{"flag", []string{"--node-name=x"}, []string{"AX_NODE_NAME=y"}, "node-name", "flag"},
		{"AX_OPTS", nil, []string{"AX_NODE_NAME=y", "AX_OPTS=--node-name=x"}, "node-name", "AX_OPTS"},
		{"variable", []string{"--config", yaml}, []string{"AX_NODE_NAME=y"}, "node-name", "AX_NODE_NAME"},
		{"line of YAML", []string{"--config", yaml}, nil, "node-name", yaml + ":2"},
		{"another line", []string{"--config", yaml}, nil, "ports", yaml + ":4"},
		{"line of JSON", []string{"--config", json}, nil, "ports", json + ":2"},
		{"TOML has no lines", []string{"--config", toml}, nil, "node-name", toml},
		{"the file itself", nil, []string{"AX_CONFIG=" + yaml}, "config", "AX_CONFIG"},
	} {
		o := newOptions()
		if err := o.fs.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		got, err := Load(o.fs, Options{Environ: c.env})
		if err != nil || got[c.flag] != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got[c.flag], err, c.want)
		}
	}
}

func TestTheUsualFile(t *testing.T) {
	usual := file(t, "appswitch.yaml", "node-name: usual\n")
	other := file(t, "other.yaml", "cluster: c2\n")
	for _, c := range []struct {
		name string
		args []string
		env  []string
		file string
		want string
	}{
		{"is read", nil, nil, usual, "usual"},
		{"may be missing", nil, nil, filepath.Join(t.TempDir(), "none.yaml"), "host"},
		{"yields to another", []string{"--config", other}, nil, usual, "host"},
		{"yields to one that a variable names", nil, []string{"AX_CONFIG=" + other}, usual, "host"},
		{"is left out with an empty --config", []string{"--config="}, nil, usual, "host"},
		{"is read with an empty variable", nil, []string{"AX_CONFIG="}, usual, "usual"},
	} {
		if o, err := load(t, c.args, Options{Environ: c.env, File: c.file}); err != nil || o.node != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, o.node, err, c.want)
		}
	}
	if _, err := load(t, nil, Options{File: file(t, "broken.yaml", "nodename: x\n")}); err == nil || !strings.Contains(err.Error(), "broken.yaml:1: unknown key") {
		t.Errorf("a broken file: %v", err)
	}
}

func TestOneFileServesSeveralPrograms(t *testing.T) {
	yaml := file(t, "c.yaml", "node-name: n1\netcd-endpoints: 10.0.0.1:2379\nfederation-gateway-ip: 10.0.0.2\n")
	foreign := []string{"AX_ETCD_ENDPOINTS", "AX_FEDERATION_*"}
	if o, err := load(t, []string{"--config", yaml}, Options{Foreign: foreign}); err != nil || o.node != "n1" {
		t.Errorf("got %q, %v", o.node, err)
	}
	if _, err := load(t, []string{"--config", yaml}, Options{Foreign: foreign[:1]}); err == nil || !strings.Contains(err.Error(), ":3: unknown key") {
		t.Errorf("an unknown key passed: %v", err)
	}
}

func TestALargeFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, []string{"--config", path}, Options{}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

func TestViewMasksSecrets(t *testing.T) {
	for _, c := range [][3]string{
		{"rest-token", "abc", Masked},
		{"etcd-password", "abc", Masked},
		{"etcd-password", "", ""},
		{"tls-key", "/etc/key.pem", "/etc/key.pem"},
		{"otlp-endpoint", "http://user:pw@h:4317", "http://user:" + Masked + "@h:4317"},
		{"etcd-endpoints", "a:1,https://u:p@b:2", "a:1,https://u:" + Masked + "@b:2"},
		{"otlp-endpoint", "http://user@h:4317", "http://user@h:4317"},
		{"otlp-endpoint", "http://u:%zz@h", "http://" + Masked},
	} {
		if got := Mask(c[0], c[1]); got != c[2] {
			t.Errorf("Mask(%s, %s) = %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestViewShowsEveryOption(t *testing.T) {
	o := newOptions()
	o.fs.String("etcd-password", "", "")
	o.fs.String("later", "", "")
	o.fs.Lookup("later").Hidden = true
	if err := o.fs.Parse([]string{"--ports=1,2-3"}); err != nil {
		t.Fatal(err)
	}
	origins, err := Load(o.fs, Options{Environ: []string{"AX_ETCD_PASSWORD=geheim"}})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := WriteView(&text, View(o.fs, origins)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(text.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := `OPTION VALUE SOURCE
agent-timeout 30s default
cluster appswitch default
config - default
dns true default
etcd-password ******** AX_ETCD_PASSWORD
node-name host default
ports 1,2-3 flag
rest-port 6664 default
tls false default`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"node-name: x\n", "a: [1, {b: c}]", "{\"dns\": false}", "dns: &a [*a]", "? [x]\n: y", "- a", "\x00"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, content string, yaml bool) {
		name := "c.toml"
		if yaml {
			name = "c.yaml"
		}
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		fs.String("node-name", "", "")
		settings, err := parseFile(name, []byte(content))
		if err != nil {
			return
		}
		linesOf(name, []byte(content))
		if v, ok := settings["node-name"]; ok && v != nil {
			_ = setFromFile(fs, "node-name", v)
		}
	})
}
