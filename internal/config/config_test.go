package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are flags of every kind that the programs use.
type options struct {
	fs      *pflag.FlagSet
	node    string
	ports   []string
	rest    int
	dns     bool
	wait    time.Duration
	tls     bool
	cluster string
}

func newOptions() *options {
	o := &options{fs: pflag.NewFlagSet("test", pflag.ContinueOnError)}
	o.fs.StringVar(&o.node, "node-name", "host", "")
	o.fs.StringSliceVar(&o.ports, "ports", []string{"40000-60000"}, "")
	o.fs.IntVar(&o.rest, "rest-port", 6664, "")
	o.fs.BoolVar(&o.dns, "dns", true, "")
	o.fs.DurationVar(&o.wait, "agent-timeout", 30*time.Second, "")
	o.fs.BoolVar(&o.tls, "tls", false, "")
	o.fs.StringVar(&o.cluster, "cluster", "appswitch", "")
	o.fs.String(FileFlag, "", "")
	o.fs.Bool("version", false, "")
	o.fs.BoolP("help", "h", false, "")
	return o
}

// file writes a configuration file and returns its path.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load parses args and loads the rest.
func load(t *testing.T, args []string, opts Options) (*options, error) {
	t.Helper()
	o := newOptions()
	if err := o.fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	_, err := Load(o.fs, opts)
	return o, err
}

func TestTheNearestSourceWins(t *testing.T) {
	yaml := file(t, "c.yaml", "node-name: from-file\n")
	for _, c := range []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"default", nil, nil, "host"},
		{"file", []string{"--config", yaml}, nil, "from-file"},
		{"file named by a variable", nil, []string{"AX_CONFIG=" + yaml}, "from-file"},
		{"file named in AX_OPTS", nil, []string{"AX_OPTS=--config " + yaml}, "from-file"},
		{"variable over file", []string{"--config", yaml}, []string{"AX_NODE_NAME=from-env"}, "from-env"},
		{"AX_OPTS over variable", []string{"--config", yaml}, []string{"AX_NODE_NAME=from-env", "AX_OPTS=--node-name from-opts"}, "from-opts"},
		{"flag over all", []string{"--config", yaml, "--node-name=from-flag"}, []string{"AX_NODE_NAME=from-env", "AX_OPTS=--node-name from-opts"}, "from-flag"},
		{"flag set to its default over variable", []string{"--node-name=host"}, []string{"AX_NODE_NAME=from-env"}, "host"},
		{"an empty variable is unset", nil, []string{"AX_NODE_NAME=", "AX_OPTS="}, "host"},
		{"a key without a value is unset", []string{"--config", file(t, "e.yaml", "node-name:\n")}, nil, "host"},
		{"other programs' variables", nil, []string{"PATH=/bin", "NODE_NAME=x", "node", "AXE=x"}, "host"},
	} {
		o, err := load(t, c.args, Options{Environ: c.env})
		if err != nil || o.node != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, o.node, err, c.want)
		}
	}
}

func TestFilesOfEveryFormat(t *testing.T) {
	for name, content := range map[string]string{
		"c.yaml": "node-name: n1\nports: [8000, 9000-9010]\nrest-port: 7000\ndns: false\nagent-timeout: 5s\ntls: true\n",
		"c.toml": "node-name = \"n1\"\nports = [\"8000\", \"9000-9010\"]\nrest-port = 7000\ndns = false\nagent-timeout = \"5s\"\ntls = true\n",
		"c.json": `{"node-name": "n1", "ports": ["8000", "9000-9010"], "rest-port": 7000, "dns": false, "agent-timeout": "5s", "tls": true}`,
		"d.yaml": "node-name: n1\nports: 8000,9000-9010\nrest-port: \"7000\"\ndns: \"false\"\nagent-timeout: 5s\ntls: yes\n",
	} {
		o, err := load(t, []string{"--config", file(t, name, content)}, Options{})
		if name == "d.yaml" { // "yes" is a string in YAML 1.2, and no boolean of a flag
			if err == nil || !strings.Contains(err.Error(), "tls") {
				t.Errorf("%s: got %v, want an error about tls", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if o.node != "n1" || !slices.Equal(o.ports, []string{"8000", "9000-9010"}) || o.rest != 7000 || o.dns || o.wait != 5*time.Second || !o.tls {
			t.Errorf("%s: got %+v", name, o)
		}
		for _, f := range []string{"node-name", "ports", "rest-port"} {
			if !o.fs.Changed(f) {
				t.Errorf("%s: --%s isn't marked as given", name, f)
			}
		}
	}
}

func TestVariablesReplaceLists(t *testing.T) {
	o, err := load(t, nil, Options{Environ: []string{"AX_PORTS=1000,2000-3000", "AX_DNS=false", "AX_AGENT_TIMEOUT=1m"}})
	if err != nil || !slices.Equal(o.ports, []string{"1000", "2000-3000"}) || o.dns || o.wait != time.Minute {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestMistakesAreErrorsThatHelp(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		file string // content of c.yaml
		args []string
		env  []string
		want []string
	}{
		{"unknown variable", "", nil, []string{"AX_NODE_NAMES=x"}, []string{"AX_NODE_NAMES", "did you mean AX_NODE_NAME?"}},
		{"unlike any", "", nil, []string{"AX_QQQQQQQQQQQQQQ=x"}, []string{"AX_QQQQQQQQQQQQQQ: unknown variable; unset it"}},
		{"commands have no variable", "", nil, []string{"AX_VERSION=true"}, []string{"AX_VERSION: unknown variable"}},
		{"near a foreign one", "", nil, []string{"AX_SERVRE=x"}, []string{"did you mean AX_SERVER?"}},
		{"bad value in a variable", "", nil, []string{"AX_REST_PORT=many"}, []string{`AX_REST_PORT="many"`, "invalid"}},
		{"unknown key", "node_name: x\n", nil, nil, []string{"c.yaml", `unknown key "node_name"`, "did you mean node-name?"}},
		{"a file names no file", "config: other.yaml\n", nil, nil, []string{`unknown key "config"`}},
		{"bad value in the file", "rest-port: many\n", nil, nil, []string{"c.yaml", "rest-port", "many"}},
		{"block in the file", "node-name: {a: b}\n", nil, nil, []string{"node-name", "not a block"}},
		{"list of blocks", "ports: [{a: b}]\n", nil, nil, []string{"ports", "plain values"}},
		{"unknown key without a value", "nodename:\n", nil, nil, []string{`unknown key "nodename"`, "did you mean node-name?"}},
		{"unknown block", "nodes: {a: b}\n", nil, nil, []string{`unknown key "nodes"`}},
		{"broken file", "node-name: [\n", nil, nil, []string{"c.yaml"}},
		{"missing file", "", []string{"--config", dir + "/none.yaml"}, nil, []string{"none.yaml", "no such file"}},
		{"unknown kind of file", "", []string{"--config", file(t, "c.conf", "x")}, nil, []string{"c.conf"}},
		{"unknown option in AX_OPTS", "", nil, []string{"AX_OPTS=--nope"}, []string{"AX_OPTS", "--nope"}},
		{"word in AX_OPTS", "", nil, []string{"AX_OPTS=--tls stray"}, []string{"AX_OPTS", `"stray" is not an option`}},
		{"open quote in AX_OPTS", "", nil, []string{"AX_OPTS=--node-name 'x"}, []string{"AX_OPTS", "not closed"}},
		{"bad value in AX_OPTS", "", nil, []string{"AX_OPTS=--rest-port many"}, []string{"AX_OPTS", "many"}},
		{"all at once", "nodename: x\n", nil, []string{"AX_TSL=1", "AX_CLUSTR=x"}, []string{"AX_TSL", "AX_CLUSTR", "nodename"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if c.file != "" {
				args = append(args, "--config", file(t, "c.yaml", c.file))
			}
			_, err := load(t, args, Options{Environ: c.env, Foreign: []string{"AX_SERVER"}})
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		})
	}
}

func TestForeignVariablesPass(t *testing.T) {
	foreign := []string{"AX_SERVER", "AX_FEDERATION_*"}
	if _, err := load(t, nil, Options{Environ: []string{"AX_SERVER=x", "AX_FEDERATION_GATEWAY_IP=y"}, Foreign: foreign}); err != nil {
		t.Error(err)
	}
	if _, err := load(t, nil, Options{Environ: []string{"AX_SERVERS=x"}, Foreign: foreign}); err == nil {
		t.Error("AX_SERVERS passed for AX_SERVER")
	}
}

func TestVariablesOfKubernetesServicesPass(t *testing.T) {
	o, err := load(t, nil, Options{Environ: []string{
		"AX_REST_SERVICE_HOST=10.96.0.7", "AX_REST_SERVICE_PORT=6664", "AX_REST_SERVICE_PORT_HTTP=6664", "AX_REST_PORT=tcp://10.96.0.7:6664",
		"AX_REST_PORT_6664_TCP=tcp://10.96.0.7:6664", "AX_REST_PORT_6664_TCP_PROTO=tcp", "AX_REST_PORT_6664_TCP_PORT=6664", "AX_REST_PORT_6664_TCP_ADDR=10.96.0.7",
	}})
	if err != nil || o.rest != 6664 || o.fs.Changed("rest-port") {
		t.Errorf("port %d, %v", o.rest, err)
	}
}

func TestAX_OPTSTakesAllForms(t *testing.T) {
	o, err := load(t, []string{"--rest-port=1"}, Options{Environ: []string{`AX_OPTS=--tls --node-name "a b" --ports 1 --ports=2 --rest-port 2 --dns=false`}})
	if err != nil || !o.tls || o.node != "a b" || !slices.Equal(o.ports, []string{"1", "2"}) || o.rest != 1 || o.dns {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestSplitAsAShell(t *testing.T) {
	for in, want := range map[string][]string{
		"":                        nil,
		"  \t\n ":                 nil,
		"a b":                     {"a", "b"},
		"  a\tb\nc ":              {"a", "b", "c"},
		`'a b' "c d"`:             {"a b", "c d"},
		`--x='a b'c`:              {"--x=a bc"},
		`''`:                      {""},
		`"" a ''`:                 {"", "a", ""},
		`a\ b`:                    {"a b"},
		`\"a`:                     {`"a`},
		`"a\"b\\c\n"`:             {`a"b\c\n`},
		`'a\b'`:                   {`a\b`},
		`"it's"`:                  {"it's"},
		`$HOME *`:                 {"$HOME", "*"},
		`--labels role=prod,é=ü`:  {"--labels", "role=prod,é=ü"},
		"--a=b --c 'd' # no hash": {"--a=b", "--c", "d", "#", "no", "hash"},
	} {
		got, err := Split(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Split(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`'`, `"a`, `a'b`, `a\`, `"a\"`} {
		if got, err := Split(in); err == nil {
			t.Errorf("Split(%q) = %q, want an error", in, got)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a b", `'a' "b\"" c\ d`, `"`, "\xff'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Split(s)
		if err != nil {
			return
		}
		// What Split gives, quoted again, it must give again.
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		again, err := Split(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(again, words) {
			t.Errorf("%q -> %q -> %q, %v", s, words, again, err)
		}
	})
}

func TestNearest(t *testing.T) {
	known := []string{"node-name", "node-interface", "dns", "dns-port", "tls"}
	for in, want := range map[string]string{
		"nodename":       " (did you mean node-name?)",
		"NODE-NAME":      " (did you mean node-name?)",
		"tsl":            " (did you mean tls?)",
		"dns-prot":       " (did you mean dns-port?)",
		"gossip-address": "",
	} {
		if got := nearest(in, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestVariable(t *testing.T) {
	if got := Variable("federation-gateway-ip"); got != "AX_FEDERATION_GATEWAY_IP" {
		t.Errorf("got %q", got)
	}
}
