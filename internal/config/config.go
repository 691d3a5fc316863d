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
	"github.com/spf13/viper"
)

const (
	// FileFlag names the flag that holds the path of the configuration file: YAML, TOML or JSON by its extension.
	FileFlag = "config"
	// envPrefix starts the name of every variable; AX_NODE_NAME is --node-name.
	envPrefix = "AX_"
	// optsVariable holds further options in one string.
	optsVariable = envPrefix + "OPTS"
	// blockDelimiter joins keys of nested blocks; no key contains it.
	blockDelimiter = "\x00"
)

// commands are flags that do something once instead of holding an option.
var commands = []string{"help", "version"}

// Options says where options come from, besides flags that are parsed already.
type Options struct {
	Environ []string // "KEY=value", as os.Environ gives it
	Foreign []string // AX_* variables that belong to other programs and are passed over; a final * stands for any ending
}

// Load sets the flags that the command line left alone; the command line must be parsed. It reports all mistakes at once.
func Load(fs *pflag.FlagSet, opts Options) error {
	given := map[string]bool{} // flags set by a nearer source
	fs.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	env := variables(opts.Environ)
	var errs []error
	collect := func(names []string, err error) {
		for _, n := range names {
			given[n] = true
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	collect(fromOpts(fs, given, env[optsVariable]))
	collect(fromEnv(fs, given, env, opts.Foreign))
	if f := fs.Lookup(FileFlag); f != nil && f.Value.String() != "" {
		collect(fromFile(fs, given, f.Value.String()))
	}
	return errors.Join(errs...)
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
func fromOpts(fs *pflag.FlagSet, given map[string]bool, value string) ([]string, error) {
	words, err := Split(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", optsVariable, err)
	}
	scratch := pflag.NewFlagSet("", pflag.ContinueOnError)
	scratch.SortFlags = false
	scratch.Usage = func() {}
	fs.VisitAll(scratch.AddFlag)
	var set []string
	err = scratch.ParseAll(words, func(f *pflag.Flag, v string) error {
		if given[f.Name] {
			return nil
		}
		set = append(set, f.Name)
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

func fromEnv(fs *pflag.FlagSet, given map[string]bool, env map[string]string, foreign []string) ([]string, error) {
	flags := map[string]string{} // variable -> flag
	for _, name := range settable(fs) {
		flags[Variable(name)] = name
	}
	flags[Variable(FileFlag)] = FileFlag
	var (
		set  []string
		errs []error
	)
	for _, variable := range slices.Sorted(maps.Keys(env)) {
		name, known := flags[variable]
		switch {
		case variable == optsVariable:
		case known && fs.Lookup(name) != nil:
			if given[name] {
				continue
			}
			set = append(set, name)
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

// settable lists the flags that variables and files may set.
func settable(fs *pflag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != FileFlag && !slices.Contains(commands, f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

func fromFile(fs *pflag.FlagSet, given map[string]bool, path string) ([]string, error) {
	// viper's own message for a missing file lists search paths that we don't use.
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(blockDelimiter)) // so that a dot in a key is no hierarchy
	v.SetConfigFile(path)
	if err := v.ReadInConfig(); err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	known := settable(fs)
	var (
		set  []string
		errs []error
	)
	settings := v.AllSettings()
	for _, key := range v.AllKeys() { // AllSettings leaves out the keys that have no value
		if _, ok := settings[key]; !ok && !strings.Contains(key, blockDelimiter) {
			settings[key] = nil
		}
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if !slices.Contains(known, key) {
			errs = append(errs, fmt.Errorf("configuration file %s: unknown key %q%s", path, key, nearest(key, known)))
			continue
		}
		if given[key] || settings[key] == nil { // a key without a value is unset, like an empty variable
			continue
		}
		set = append(set, key)
		if err := setFromFile(fs, key, settings[key]); err != nil {
			errs = append(errs, fmt.Errorf("configuration file %s: %s: %w", path, key, err))
		}
	}
	return set, errors.Join(errs...)
}

// setFromFile hands a value of the file to the flag in the form that the command line would have it.
func setFromFile(fs *pflag.FlagSet, name string, value any) error {
	switch v := value.(type) {
	case map[string]any:
		return errors.New("wants a value, not a block of further keys")
	case []any:
		words := make([]string, len(v))
		for i, e := range v {
			switch e.(type) {
			case map[string]any, []any, nil:
				return errors.New("wants a list of plain values")
			}
			words[i] = fmt.Sprint(e)
		}
		if list, ok := fs.Lookup(name).Value.(pflag.SliceValue); ok {
			if err := list.Replace(words); err != nil {
				return err
			}
			fs.Lookup(name).Changed = true
			return nil
		}
		return fs.Set(name, strings.Join(words, ","))
	default:
		return fs.Set(name, fmt.Sprint(v))
	}
}
