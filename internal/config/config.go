// Package config fills a set of flags from where users put options: the command line, AX_OPTS, AX_* variables, a file.
//
// Its invariant: the nearest to the user wins (flag, AX_OPTS, variable, file, default), and what is not understood is an
// error that names the nearest known option, never ignored. The flags stay the only place where options are declared.
// Start reading at [Load].
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

const (
	// FileFlag names the flag that holds the path of the configuration file: YAML, TOML or JSON by its extension.
	FileFlag = "config"
	// DefaultFile is read when it exists and no other is named.
	DefaultFile = "/etc/appswitch/appswitch.yaml"
	// envPrefix starts the name of every variable; AX_NODE_NAME is --node-name.
	envPrefix = "AX_"
	// optsVariable holds further options in one string.
	optsVariable = envPrefix + "OPTS"
)

// commands are flags that do something once instead of holding an option.
var commands = []string{"help", "version", "show-config"}

// Options says where options come from, besides flags that are parsed already.
type Options struct {
	Environ []string // "KEY=value", as os.Environ gives it
	// Foreign are the AX_* variables that belong to other programs and are passed over, as are the keys of a file that
	// stand for the same options: one environment and one file may serve several programs. A final * stands for any
	// ending.
	Foreign []string
	File    string // read if it exists and --config names no other; usually DefaultFile
}

// Origins tells, by flag, where a value came from: "flag", "AX_OPTS", the name of a variable, or the path of a file, in
// YAML with ":line". Flags that are not in it have their default.
type Origins map[string]string

// fromFlag is the origin of what the command line gave.
const fromFlag = "flag"

// Load sets the flags that the command line left alone; the command line must be parsed. It reports all mistakes at
// once, and where each value came from.
func Load(fs *pflag.FlagSet, opts Options) (Origins, error) {
	given := Origins{}                // flags set by a nearer source
	fs.VisitAll(func(f *pflag.Flag) { // not Visit: another set with the same flags may have parsed the command line
		if f.Changed {
			given[f.Name] = fromFlag
		}
	})
	env := variables(opts.Environ)
	var errs []error
	collect := func(origins Origins, err error) {
		maps.Copy(given, origins)
		if err != nil {
			errs = append(errs, err)
		}
	}
	collect(fromOpts(fs, given, env[optsVariable]))
	collect(fromEnv(fs, given, env, opts.Foreign))
	if path := filePath(fs, opts.File); path != "" {
		collect(fromFile(fs, given, path, opts.Foreign))
	}
	return given, errors.Join(errs...)
}

// filePath returns the file to read: the one that --config names (none if it names none), or the usual one if it is there.
func filePath(fs *pflag.FlagSet, usual string) string {
	if f := fs.Lookup(FileFlag); f != nil && (f.Changed || f.Value.String() != "") {
		return f.Value.String()
	}
	if usual != "" {
		if _, err := os.Stat(usual); errors.Is(err, os.ErrNotExist) {
			return ""
		}
	}
	return usual
}

// Variable returns the name of the variable that stands for a flag.
func Variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// variables returns the AX_* variables that are set; an empty one is unset.
func variables(environ []string) map[string]string {
	out := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		if v != "" && strings.HasPrefix(k, envPrefix) && !kubernetesLink(k, v) {
			out[k] = v
		}
	}
	return out
}

// kubernetesNames are the variables that Kubernetes puts into each pod for a Service: with one called "ax-rest" they are
// AX_REST_SERVICE_HOST, AX_REST_PORT and so on. Nobody gave them to us.
var kubernetesNames = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

func kubernetesLink(name, value string) bool {
	if kubernetesNames.MatchString(name) {
		return true
	}
	scheme, _, isURL := strings.Cut(value, "://")
	return strings.HasSuffix(name, "_PORT") && isURL && (scheme == "tcp" || scheme == "udp" || scheme == "sctp")
}

// fromOpts reads the options of AX_OPTS. They stand before those of the command line, so they yield to them.
func fromOpts(fs *pflag.FlagSet, given Origins, value string) (Origins, error) {
	words, err := Split(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", optsVariable, err)
	}
	scratch := pflag.NewFlagSet("", pflag.ContinueOnError)
	scratch.SortFlags = false
	scratch.Usage = func() {}
	fs.VisitAll(scratch.AddFlag)
	set := Origins{}
	err = scratch.ParseAll(words, func(f *pflag.Flag, v string) error {
		if given[f.Name] != "" {
			return nil
		}
		set[f.Name] = optsVariable
		return fs.Set(f.Name, v)
	})
	switch {
	case errors.Is(err, pflag.ErrHelp):
		err = errors.New("help is not an option to keep in a variable")
	case err == nil && scratch.NArg() > 0:
		err = fmt.Errorf("%q is not an option", scratch.Arg(0))
	}
	if err != nil {
		return set, fmt.Errorf("%s=%q: %w", optsVariable, value, err)
	}
	return set, nil
}

func fromEnv(fs *pflag.FlagSet, given Origins, env map[string]string, foreign []string) (Origins, error) {
	flags := map[string]string{} // variable -> flag
	for _, name := range settable(fs) {
		flags[Variable(name)] = name
	}
	flags[Variable(FileFlag)] = FileFlag
	set := Origins{}
	var errs []error
	for _, variable := range slices.Sorted(maps.Keys(env)) {
		name, known := flags[variable]
		switch {
		case variable == optsVariable:
		case known && fs.Lookup(name) != nil:
			if given[name] != "" {
				continue
			}
			set[name] = variable
			if err := fs.Set(name, env[variable]); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", variable, env[variable], err))
			}
		case !matches(variable, foreign):
			all := append(slices.Collect(maps.Keys(flags)), foreign...)
			slices.Sort(all)
			errs = append(errs, fmt.Errorf("%s: unknown variable%s; unset it, or see --help for the options", variable, nearest(variable, all)))
		}
	}
	return set, errors.Join(errs...)
}

func matches(variable string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, open := strings.CutSuffix(p, "*")
		return variable == p || open && strings.HasPrefix(variable, prefix)
	})
}

// isOption reports whether variables and files may set a flag.
func isOption(flag string) bool { return flag != FileFlag && !slices.Contains(commands, flag) }

// settable lists the flags that variables and files may set.
func settable(fs *pflag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if isOption(f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}
