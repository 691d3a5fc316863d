package options

import (
	"errors"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

// ErrHelp says that the command line asks for help.
var ErrHelp = errors.New("help requested")

// UsageError is a command line that makes no sense; its text names the argument and the fix.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

func usage(parts ...string) error { return &UsageError{Message: text.Join(parts...)} }

// Parse reads the arguments that follow `ax run`. getenv supplies AX_RUN_DIR; found reports whether a word is the
// name of a program, for the suggestion that an unknown option deserves. The error is ErrHelp or a *UsageError.
func Parse(args []string, getenv func(string) string, found func(string) bool) (Run, error) {
	r := Run{NewNetns: true, DNSOverride: true, RunDir: getenv("AX_RUN_DIR")}
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			args = args[1:]
			break
		}
		if arg == "-h" || arg == "--help" {
			return r, ErrHelp
		}
		if arg == "" || arg == "-" || arg[0] != '-' {
			break
		}
		name, value, long := split(arg)
		option, known := lookup(name)
		if !long || !known {
			return r, unknown(args, found)
		}
		used := 1
		if value == nil {
			v := "true"
			if option.Kind != Bool {
				if len(args) < 2 {
					return r, usage("option --", name, " needs a value: --", name, " ", option.Arg)
				}
				v, used = args[1], 2
			}
			value = &v
		}
		if err := r.set(option, *value); err != nil {
			return r, err
		}
		args = args[used:]
	}
	r.Command = args
	return r, r.check()
}

// set stores one option's value.
func (r *Run) set(o Option, value string) error {
	if o.Kind == Bool {
		b, ok := parseBool(value)
		if !ok {
			return usage("option --", o.Name, "=", value, ": the value is true or false")
		}
		switch o.Name {
		case "new-netns":
			r.NewNetns = b
		case "no-new-netns":
			r.NewNetns = !b
		case "dns-override":
			r.DNSOverride = b
		case "init":
			r.Init = b
		}
		return nil
	}
	if value == "" && o.Kind == String {
		return usage("option --", o.Name, " has an empty value: give ", o.Arg, " or leave the option out")
	}
	switch o.Name {
	case "ip":
		r.IP = value
	case "name":
		r.Name = value
	case "labels":
		return r.addLabels(value)
	case "expose":
		return usage("option --expose ", value, ": exposing ports is not part of this release; leave the option out")
	case "user":
		r.User = value
	case "interface":
		if !validInterface(value) {
			return usage("option --interface ", value, ": an interface name has 1 to 15 characters, no blank, / or :")
		}
		r.Interface = value
	case "run-dir":
		r.RunDir = value
	case "health-check", "health-interval", "health-timeout", "health-failures", "health-successes":
		r.Health = append(r.Health, o.Name[len("health-"):]+"="+value)
	}
	return nil
}

const maxInterfaceName = 15 // IFNAMSIZ without the final zero

// validInterface is the kernel's rule for names of devices.
func validInterface(name string) bool {
	for _, b := range []byte("/: \t\n\v\f\r") {
		if text.Contains(name, b) {
			return false
		}
	}
	return name != "" && len(name) <= maxInterfaceName && name != "." && name != ".."
}

func (r *Run) addLabels(csv string) error {
	for _, label := range text.Split(csv, ',') {
		label = text.Trim(label)
		key, value, ok := text.Cut(label, '=')
		if !ok || key == "" {
			return usage("option --labels ", csv, ": ", quote(label), " is not KEY=VALUE")
		}
		if r.Labels == nil {
			r.Labels = make(map[string]string)
		}
		if old, twice := r.Labels[key]; twice && old != value {
			return usage("option --labels: ", key, " has two values, ", quote(old), " and ", quote(value))
		}
		r.Labels[key] = value
	}
	return nil
}

// check looks at what belongs together.
func (r *Run) check() error {
	if len(r.Command) == 0 || r.Command[0] == "" {
		return usage("no program given: ax run [options] [--] PROGRAM [arguments]")
	}
	if r.Interface != "" && !r.NewNetns {
		return usage("option --interface ", r.Interface, " needs the new network namespace: leave out --new-netns=false")
	}
	if r.RunDir == "" {
		if o, ok := lookup("run-dir"); ok {
			r.RunDir = o.Default
		}
	}
	return nil
}

// unknown is the error for the option at args[0].
func unknown(args []string, found func(string) bool) error {
	arg := args[0]
	name, _, long := split(arg)
	near := ""
	if long {
		near = nearest(name)
	} else {
		name = arg[1:]
	}
	message := text.Join("unknown option ", arg)
	if near != "" {
		message += text.Join("; did you mean --", near, "?")
	}
	// The dashes may be a slip for the program itself: `ax run --curl` for `ax run -- curl`.
	if found(name) || long && near == "" {
		if near == "" {
			message += ";"
		}
		message += text.Join(" to run ", name, ": ax run -- ", name)
		for i, a := range args[1:] {
			if i == maxEcho {
				message += " ..."
				break
			}
			message += " " + a
		}
	} else if near == "" {
		message += "; to run a program whose name starts with a dash, write -- before it"
	}
	return usage(message)
}

const maxEcho = 8 // arguments repeated in a suggestion

// nearest names the option that name is most likely a slip for, or nothing.
func nearest(name string) string {
	best, bestDistance := "", 1+max(2, len(name)/3)
	for _, o := range Table {
		if o.Hidden {
			continue
		}
		if d := distance(name, o.Name); d < bestDistance && d < len(name) {
			best, bestDistance = o.Name, d
		}
		if len(name) > 2 && bestDistance > 1 && text.HasPrefix(o.Name, name) {
			best, bestDistance = o.Name, 1
		}
	}
	return best
}

// distance counts the insertions, removals, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// parseBool accepts what strconv.ParseBool, and so the flags of other commands, accept.
func parseBool(s string) (value, ok bool) {
	switch s {
	case "1", "t", "T", "true", "TRUE", "True":
		return true, true
	case "0", "f", "F", "false", "FALSE", "False":
		return false, true
	}
	return false, false
}

func quote(s string) string { return "'" + s + "'" }
