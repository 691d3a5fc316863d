// Package options is the option table of `ax run` and its parser.
//
// It is pure and imports almost nothing, because `ax run` has milliseconds to start: the parser here serves the fast
// path, and the command line tool builds its flags, help and completion from the same [Table], so that the two never
// differ. Invariant: options end at the first argument that is not one, so whatever follows the program is its own.
// Start reading at [Table] and [Parse].
package options

// Kind says what value an option takes.
type Kind int

// Kinds of option.
const (
	String Kind = iota // --name VALUE or --name=VALUE
	Bool               // --name, --name=true or --name=false
	List               // like String; may be repeated, the values add up
)

// Option is one option of `ax run`.
type Option struct {
	Name    string
	Kind    Kind
	Default string
	Arg     string // what the help calls the value
	Help    string
	Hidden  bool // accepted, left out of help and completion
	// Shorthand options may stand first without the word run: `ax --labels role=test curl`.
	Shorthand bool
}

// Table lists every option, in the order of the help.
var Table = []Option{
	{Name: "ip", Kind: String, Arg: "ADDRESS", Shorthand: true,
		Help: "virtual address, IPv4 or IPv6, at which the program's services are reachable, and its source address for peers"},
	{Name: "name", Kind: String, Arg: "NAME", Shorthand: true,
		Help: "DNS name of the program's services; without --ip an address is made up"},
	{Name: "labels", Kind: List, Default: "zone=default", Arg: "KEY=VALUE,...", Shorthand: true,
		Help: "labels; a client reaches a service only if they share at least one"},
	{Name: "expose", Kind: List, Arg: "PORT:[ADDRESS:]HOSTPORT", Shorthand: true,
		Help: "make a port reachable from outside on a host port (not in this release)"},
	{Name: "health-check", Kind: String, Arg: "CHECK", Shorthand: true,
		Help: "have the program's services checked: tcp, http:/PATH or grpc:SERVICE; with a port after the colon, that one for all"},
	{Name: "health-interval", Kind: String, Default: "5s", Arg: "DURATION", Shorthand: true,
		Help: "time between two checks"},
	{Name: "health-timeout", Kind: String, Default: "1s", Arg: "DURATION", Shorthand: true,
		Help: "time in which a check has to succeed"},
	{Name: "health-failures", Kind: String, Default: "3", Arg: "NUMBER", Shorthand: true,
		Help: "failed checks in a row that make a service unhealthy"},
	{Name: "health-successes", Kind: String, Default: "1", Arg: "NUMBER", Shorthand: true,
		Help: "successful checks in a row that make it healthy again"},
	{Name: "user", Kind: String, Arg: "NAME|UID", Shorthand: true,
		Help: "run the program as this user"},
	{Name: "interface", Kind: String, Arg: "NAME", Shorthand: true,
		Help: "network interface that carries the program's address in its new network namespace"},
	{Name: "new-netns", Kind: Bool, Default: "true", Shorthand: true,
		Help: "give the program a network namespace of its own"},
	{Name: "no-new-netns", Kind: Bool, Default: "false", Hidden: true, Shorthand: true,
		Help: "same as --new-netns=false"},
	{Name: "dns-override", Kind: Bool, Default: "true", Shorthand: true,
		Help: "send the program's name lookups to the built-in DNS"},
	{Name: "init", Kind: Bool, Default: "false", Shorthand: true,
		Help: "stay as a parent that reaps orphans and forwards signals, as PID 1 of a container should"},
	{Name: "run-dir", Kind: String, Default: "/var/run/appswitch", Arg: "DIR",
		Help: "directory of the agent's socket (AX_RUN_DIR); as a normal user, that of one's own daemon if there is one"},
}

// Run is a parsed command line.
type Run struct {
	IP          string
	Name        string
	Labels      map[string]string // nil if not given: the agent's default applies
	Expose      []string
	User        string
	Interface   string
	NewNetns    bool
	DNSOverride bool
	Init        bool
	RunDir      string
	Health      []string // --health-NAME as "NAME=value", for the agent to read
	Command     []string // program and arguments; at least one
}

// lookup finds an option by name.
func lookup(name string) (Option, bool) {
	for _, o := range Table {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

// IsShorthand reports whether arg, the first argument of `ax`, is an option of `ax run` that may stand without the
// word run.
func IsShorthand(arg string) bool {
	name, _, ok := split(arg)
	if !ok {
		return false
	}
	o, known := lookup(name)
	return known && o.Shorthand
}

// split takes "--name=value" apart. It reports false for anything that is not a long option.
func split(arg string) (name string, value *string, ok bool) {
	if len(arg) < 3 || arg[0] != '-' || arg[1] != '-' {
		return "", nil, false
	}
	for i := 2; i < len(arg); i++ {
		if arg[i] == '=' {
			v := arg[i+1:]
			return arg[2:i], &v, true
		}
	}
	return arg[2:], nil, true
}
