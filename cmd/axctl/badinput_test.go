package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// badInput is a command line that can't succeed.
type badInput struct {
	line string // blanks separate words; '' is an empty one
	env  string // further variables, separated by blanks
	code int
	want string // what the message must say: what is wrong, and what to do
}

// Exit statuses, as docs/cli.md has them.
const (
	failed      = 1
	misused     = 2
	trouble     = 2 // of a command whose status 1 is an answer
	notLaunched = 125
	notFound    = 127
)

// badInputs is in the order of the documentation's chapters.
var badInputs = []badInput{
	// Commands and flags that are not there name the nearest one.
	{"nosuch", "", misused, `unknown command "nosuch" for "ax"`},
	{"gte apps", "", misused, `unknown command "gte" for "ax": did you mean get?`},
	{"statsu", "", misused, "did you mean status?"},
	{"get", "", misused, "ax get what? One of: apps"},
	{"get appz", "", misused, `unknown command "appz" for "ax get": did you mean apps?`},
	{"get widgets", "", misused, `unknown command "widgets" for "ax get"`},
	{"create", "", misused, "ax create what? One of:"},
	{"create vservce x", "", misused, "did you mean vservice?"},
	{"delete", "", misused, "ax delete what? One of:"},
	{"config", "", misused, "ax config what? One of:"},
	{"config use-contxt x", "", misused, "did you mean use-context?"},
	{"connectivity", "", misused, "ax connectivity what? One of: test"},
	{"help gett", "", misused, `unknown command "gett"`},
	{"completion tcsh", "", misused, `unknown command "tcsh" for "ax completion"`},
	{"get apps --ouptut json", "", misused, "unknown flag: --ouptut: did you mean --output?"},
	{"get apps --wtach", "", misused, "did you mean --watch?"},
	{"get apps -q", "", misused, "unknown shorthand flag: 'q' in -q"},
	{"--lables a=b true", "", misused, "unknown flag: --lables: did you mean --labels?"},
	{"observe --verdct deny", "", misused, "did you mean --verdict?"},
	{"status --sever x", "", misused, "did you mean --server?"},
	{"version extra", "", misused, `unknown command "extra" for "ax version"`},
	{"check extra", "", misused, `unknown command "extra" for "ax check"`},
	{"status extra", "", misused, `unknown command "extra" for "ax status"`},

	// Values that can't be meant show the form.
	{"get apps -o xml", "", misused, "want one of table, wide, json, yaml, name"},
	{"get apps -o", "", misused, "flag needs an argument: 'o' in -o"},
	{"status -o wide", "", misused, "want one of table, json, yaml"},
	{"check -o name", "", misused, "want one of table, json, yaml"},
	{"get apps -l role=", "", misused, `selector "role=": want k=v, k!=v, k or !k`},
	{"get apps -l role=prod,,", "", misused, `selector "": want k=v, k!=v, k or !k`},
	{"get apps -l a=b=c", "", misused, `selector "a=b=c": want k=v`},
	{"get nodes -l role=prod", "", misused, "nodes have no labels; apps and servers have"},
	{"get apps --timeout soon", "", misused, `invalid argument "soon" for "--timeout"`},
	{"get apps --timeout 0s", "", misused, "timeout 0s: want more than 0"},
	{"get apps --watch=maybe", "", misused, `invalid argument "maybe"`},
	{"drain", "", misused, "ax drain what? One of: app, node"},
	{"drain app", "", misused, "accepts 1 arg(s), received 0"},
	{"drain app web --undo --wait", "", misused, "--undo and --wait: there is nothing to wait for: leave one of them out"},
	{"drain app web --limit 3s", "", misused, "--limit 3s: bounds --wait, which is not given"},
	{"drain node n1 --wait --limit -3s", "", misused, "--limit -3s: want more than 0"},
	{"explain", "", misused, `--to "": want ADDRESS:PORT or NAME:PORT, such as web:80`},
	{"explain --to 1.1.1.1", "", misused, `--to "1.1.1.1": want ADDRESS:PORT or NAME:PORT`},
	{"explain --to 1.1.1.1:http", "", misused, `--to "1.1.1.1:http": want`},
	{"explain --to 1.1.1.1:65536", "", misused, `--to "1.1.1.1:65536": want`},
	{"explain --to :80", "", misused, `--to ":80": want`},
	{"explain --to web:80 --labels role", "", misused, `--labels: label "role": want key=value`},
	{"explain --to web:80 --labels a=b,a=c", "", misused, `key "a" is given twice`},
	{"explain --to web:80 --labels =b", "", misused, "key and value must not be empty"},
	{"explain --to web:80 --proto sctp", "", misused, `--proto: protocol "sctp": want tcp or udp`},
	{"explain --to web:80 --from web --labels a=b", "", misused, "--from and --labels both say who connects: leave one of them out"},
	{"observe --verdict maybe", "", misused, `--verdict "maybe": want allow, deny, passthrough or audit`},
	{"observe --to 1.1.1.1:0", "", misused, `--to "1.1.1.1:0": want ADDRESS, ADDRESS:PORT, :PORT, NAME or NAME:PORT`},
	{"observe --to 1.1.1.1:80:80", "", misused, "want ADDRESS"},
	{"observe --last -1", "", misused, `invalid argument "-1" for "--last"`},
	{"observe --since yesterday", "", misused, `invalid argument "yesterday" for "--since"`},
	{"observe --since -5m", "", misused, "--since -5m0s: want a duration that has passed, such as 5m"},
	{"top nodes", "", misused, `ax top "nodes": want one of apps, services`},
	{"top --interval 1ms", "", misused, "--interval 1ms: want 100ms to 1h0m0s"},
	{"top -n -1", "", misused, "--rows -1: want 0 or more"},
	{"sysdump --debug-addr 6666", "", misused, `--debug-addr "6666": want ADDRESS:PORT, such as 127.0.0.1:6666`},
	{"exec web", "", misused, "want an application and a command: ax exec APP -- COMMAND"},

	// Virtual services.
	{"create vservice", "", misused, "accepts 1 arg"},
	{"create vservice --ip web v", "", misused, `--ip "web": not an IP address`},
	{"create vservice --backends 10.0.2.15:99999 v", "", misused, `--backends: "10.0.2.15:99999"`},
	{"create vservice --ports 80:99999 v", "", misused, `--ports: "80:99999"`},
	{"create vservice --ports http v", "", misused, `--ports: "http"`},
	{"create vservice --lbtype Sticky v", "", misused, `--lbtype: "Sticky"`},
	{"delete vservice", "", misused, "requires at least 1 arg"},

	// Policies.
	{"create policy --action deny --from a=b", "", misused, "accepts 1 arg"},
	{"create policy p --from a=b", "", misused, `--action "": want allow or deny`},
	{"create policy p --action drop", "", misused, `--action "drop": want allow or deny`},
	{"create policy p --action deny", "", misused, "the policy names nothing, and so applies to every connection: add --from"},
	{"create policy p --action deny --from role=", "", misused, `--from: selector "role=": want k=v, k!=v, k or !k, k in (v,w)`},
	{"create policy p --action deny --from a=b,a=c", "", misused, `--from: label "a" can't be "b" and "c": use a in (b,c)`},
	{"create policy p --action deny --to db(", "", misused, `--to: selector "db("`},
	{"create policy p --action deny --ports http", "", misused, `--ports "http": want a port from 1 to 65535, or a range such as 8000-8100`},
	{"create policy p --action deny --ports 0", "", misused, `--ports "0": want a port`},
	{"create policy p --action deny --ports 90-80", "", misused, `--ports "90-80": the range ends before it begins`},
	{"create policy p --action deny --protocol icmp --from a=b", "", misused, `--protocol: protocol "icmp": want tcp or udp`},
	{"create policy p --action deny --to-cidr 10.0.0.1/8", "", misused, `--to-cidr "10.0.0.1/8": the address has bits beyond the network's: want 10.0.0.0/8, or the address alone`},
	{"create policy p --action deny --to-cidr example.org", "", misused, `--to-cidr "example.org": want a network such as 10.0.0.0/8`},
	{"create policy p --action deny --to-cidr 10.0.0.0/8 --except-cidr 11.0.0.0/16", "", misused, "--except-cidr: 11.0.0.0/16 is in none of the networks of to-cidr"},
	{"create policy p --action allow --from a=b --audit", "", misused, "--audit: only a policy that denies can be audited"},
	{"create policy p --actoin deny", "", misused, "did you mean --action?"},
	{"create polcy p", "", misused, `unknown command "polcy" for "ax create": did you mean policy?`},
	{"delete policy", "", misused, "requires at least 1 arg"},
	{"delete policy nosuch", "", failed, `there is no policy "nosuch"`},
	{"get policy nosuch", "", failed, `no policy "nosuch": ` + "`ax get policies` lists them"},
	{"get policies -l role=prod", "", misused, "policies have no labels; apps and servers have"},
	{"policy", "", misused, "ax policy what? One of: replay"},
	{"policy reply", "", misused, `unknown command "reply" for "ax policy": did you mean replay?`},
	{"policy replay", "", misused, "ax policy replay what? Name a draft with -f, or policies to leave out with --without"},
	{"policy replay -f - --flows -", "", misused, "both read standard input: name a file for one of them"},
	{"policy replay -f /nonexistent.yaml", "", trouble, "open /nonexistent.yaml: no such file or directory"},
	{"policy replay --without nosuch", "", trouble, `--without: no policy "nosuch": ` + "`ax get policies` lists them"},
	{"policy replay -f $DRAFT -o yaml", "", misused, "want one of table, json"},
	{"policy replay -f $DRAFT --flows /nonexistent.json", "", trouble, "open /nonexistent.json: no such file or directory"},
	{"policy replay -f $DRAFT --flows $DRAFT", "", trouble, "draft.yaml: line 1: not a connection as `ax observe -o json` writes it"},
	{"policy replay -f $VSERVICE --flows $DRAFT", "", trouble, "vservice/v is no policy: only policies are replayed"},
	{"policy replay --without p", "AX_SERVER=127.0.0.1:1", trouble, "the daemon is not running at"},

	// Which daemon is meant.
	{"get apps --server ftp://x", "", misused, `server "ftp://x": want a URL such as http://127.0.0.1:6664`},
	{"get apps --server http://me:secret@x", "", misused, "want a URL such as"},
	{"get apps --context lba", "", misused, `no context "lba": did you mean lab?`},
	{"get apps --context x --server y", "", misused, "leave one of them out"},
	{"get apps --tls-cert x", "", misused, "no effect without --tls: add --tls"},
	{"get apps --tls", "", misused, "--tls needs --tls-ca-cert FILE"},
	{"get apps --server https://127.0.0.1:1 --tls-ca-cert /nonexistent --tls-cert x --tls-key x", "", failed, "/nonexistent: no such file or directory"},
	{"config set-context x", "", misused, `context "x" is new: give its --server URL`},
	{"config set-context x --server y:1 --tls-key k", "", misused, "TLS needs ca-cert, cert and key, or none of them"},
	{"config use-context", "", misused, "accepts 1 arg"},
	{"config use-context nosuch", "", misused, `no context "nosuch": ` + "`ax config get-contexts` lists them"},
	{"config current-context", "", failed, "no context is in use"},
	{"get apps", "AX_SERVER= XDG_CONFIG_HOME=$BROKEN", failed, `config.yaml: unknown field "contxts"; correct it`},
	{"get apps", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at http://127.0.0.1:1: start it with `sudo ax daemon`, or name another with --server"},
	{"observe", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"top", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"explain --to web:80", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"exec web true", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"get servers", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"get sockets", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"get vservices", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"get nodes", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"get proxies", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"create vservice --ip 1.1.1.1 v", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"delete vservice v", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"apply -f $GOODFILE", "AX_SERVER=127.0.0.1:1", failed, "the daemon is not running at"},
	{"diff -f $GOODFILE", "AX_SERVER=127.0.0.1:1", misused, "the daemon is not running at"},
	{"get apps", "AX_SERVER=$FOREIGN", failed, "is it the --rest-port of a daemon?"},
	{"observe", "AX_SERVER=$FOREIGN", failed, "is it the --rest-port of a daemon?"},
	{"get apps --timeout 50ms", "AX_SERVER=$SILENT", failed, "did not answer within 50ms"},

	// Names that are not there.
	{"get app wbe", "", failed, `no app "wbe": did you mean web?`},
	{"get app nosuch nothing", "", failed, `no app "nosuch", "nothing": ` + "`ax get apps` lists them"},
	{"explain --from wbe --to 1.1.1.1:80", "", failed, `no application has the id or name "wbe": did you mean web?`},
	{"observe --to wbe", "", failed, `the service table has no name "wbe": did you mean web?`},
	{"delete vservice nosuch", "", failed, `virtual service "nosuch" does not exist`},
	{"exec wbe true", "", failed, `no app "wbe": did you mean web?`},
	{"exec web true", "", failed, `app "web" runs on node far, not on this machine: run ax exec there`},
	{"sysdump /nonexistent/x.tar.gz", "", failed, "open /nonexistent/x.tar.gz: no such file or directory"},

	// Files name the line.
	{"apply", "", misused, "-f"},
	{"apply -f /nonexistent.yaml", "", failed, "/nonexistent.yaml: no such file or directory"},
	{"apply -f $BROKEN/indent.yaml", "", failed, "indent.yaml: document 1: line 3: mapping values are not allowed"},
	{"apply -f $BROKEN/tab.yaml", "", failed, "tab.yaml: document 1: line 2: found a tab"},
	{"apply -f $BROKEN/key.yaml", "", failed, `key.yaml: document 1, line 3: unknown field "backend" of VirtualService: did you mean backends?`},
	{"diff -f $BROKEN/key.yaml", "", misused, `key.yaml: document 1, line 3: unknown field`},
	{"apply -f $BROKEN/kind.yaml", "", failed, `kind.yaml: document 1, line 1: kind: "Vservice" is not known: want VirtualService or Policy`},
	{"daemon --config $BROKEN/daemon.yaml", "", misused, `daemon.yaml:2: unknown key "nodename" (did you mean node-name?)`},
	{"daemon --config $BROKEN/tab.yaml", "", misused, "tab.yaml: While parsing config: yaml: line 2: found a tab"},
	{"daemon --config $BROKEN/value.yaml", "", misused, "value.yaml:1: "},

	// The daemon's own options.
	{"daemon --driver magic", "", misused, `--driver "magic"`},
	{"daemon --ports 80-", "", misused, "--ports"},
	{"daemon --ports 5-1", "", misused, "--ports"},
	{"daemon --node-interface nosuch0", "", failed, "nosuch0"},
	{"daemon --neighbors 10.0.0.1", "", misused, "--neighbors: not available in this version: leave it out"},
	{"daemon --grpc-listen 6665", "", misused, `--grpc-listen "6665": want ADDRESS:PORT`},
	{"daemon --config /nonexistent.yaml", "", misused, "configuration file: stat /nonexistent.yaml: no such file or directory"},
	{"daemon", "AX_NODE_NAMES=x", misused, "AX_NODE_NAMES: unknown variable (did you mean AX_NODE_NAME?)"},
	{"daemon", "AX_OPTS=--clena", misused, "unknown flag: --clena"},
	{"daemon --state-dir /dev/null/x", "", failed, "--state-dir: mkdir /dev/null: not a directory (run as root, or name another directory)"},
	{"daemon --node-interface 127.0.0.1 --dns=false", "AX_GRPC_LISTEN=$SILENT", failed, "address already in use: choose another, or stop what uses it"},
	{"daemon extra", "", misused, `unknown command "extra" for "ax daemon"`},

	// Launching.
	{"run", "", misused, "no program given"},
	{"run --nam web true", "", misused, "did you mean --name?"},
	{"run --ip 1.1.1.1", "", misused, "no program given"},
	{"run true", "", notLaunched, "the AppSwitch daemon is not running here: /nonexistent/agent.sock does not exist"},
	{"run --labels role true", "", misused, "--labels"},
	{"run --user nosuchuser true", "", misused, "--user nosuchuser: no such user"},
	{"run nosuchprogram", "", notFound, "nosuchprogram"},
	{"connectivity test", "", failed, "the AppSwitch daemon is not running here"},
}

// TestBadInput: each gives one clear line with the way out and the documented exit status, and nothing on standard output.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	env := badEnvironment(t, dir)
	for _, c := range badInputs {
		t.Run(strings.ReplaceAll(c.line, "/", "_")+" "+c.env, func(t *testing.T) {
			words := strings.Fields(c.line)
			for i, w := range words {
				if words[i] = os.Expand(w, variables(env)); w == "''" {
					words[i] = ""
				}
			}
			r := run(t, append(env[:len(env):len(env)], strings.Fields(os.Expand(c.env, variables(env)))...), words...)
			lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
			if c.code == misused && len(lines) == 2 && strings.HasPrefix(lines[1], "See 'ax ") {
				lines = lines[:1]
			}
			if r.code != c.code || len(lines) != 1 || !strings.Contains(lines[0], c.want) || !strings.HasPrefix(lines[0], "ax") || r.stdout != "" {
				t.Errorf("ax %s %s\nexit status %d, want %d with one line: %s\n%s%s", c.env, c.line, r.code, c.code, c.want, r.stdout, r.stderr)
			}
		})
	}
	if len(badInputs) < 80 {
		t.Errorf("%d cases", len(badInputs))
	}
}

// variables returns what a case may use of an environment.
func variables(env []string) func(string) string {
	return func(name string) string {
		for _, kv := range env {
			if value, ok := strings.CutPrefix(kv, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// badEnvironment has a daemon with an application on another node, servers that are none, and a broken configuration.
func badEnvironment(t *testing.T, dir string) []string {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	table := write("table.json", `{"nodes": [{"name": "far", "ip": "192.0.2.77"}], "apps": [{"id": "f000028e", "name": "web", "node": "far", "ip": "1.1.1.1"}]}`)
	draft := write("draft.yaml", "kind: Policy\nname: p\naction: deny\n")
	vservice := write("vservice.yaml", "kind: VirtualService\nname: v\n")
	write("good/appswitch/config.yaml", "contexts: [{name: lab, server: '127.0.0.1:1'}]\n")
	write("broken/appswitch/config.yaml", "contxts: []\n")
	for name, text := range map[string]string{
		"indent": "kind: VirtualService\nname: v\n  backends: [1.1.1.1]\n",
		"tab":    "kind: VirtualService\n\tname: v\n",
		"key":    "kind: VirtualService\nname: v\nbackend: [1.1.1.1]\n",
		"kind":   "kind: Vservice\nname: v\n",
		"daemon": "driver: user\nnodename: x\n",
		"value":  "rest-port: http\n",
	} {
		write("broken/"+name+".yaml", text)
	}
	good := write("good.yaml", "kind: VirtualService\nname: v\nbackends: [1.1.1.1]\n")
	daemon, err := newFakeDaemon(table)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := daemon.rest(nil)
	if err != nil {
		t.Fatal(err)
	}
	server, foreign := httptest.NewServer(rest), httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	t.Cleanup(foreign.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it never accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	return []string{
		"PATH=/usr/bin:/bin", "AX_SERVER=" + server.URL, "XDG_CONFIG_HOME=" + filepath.Join(dir, "good"), "AX_STATE_DIR=" + filepath.Join(dir, "state"),
		"BROKEN=" + filepath.Join(dir, "broken"), "DRAFT=" + draft, "VSERVICE=" + vservice, "GOODFILE=" + good, "FOREIGN=" + foreign.URL, "SILENT=" + silent.Addr().String(),
	}
}
