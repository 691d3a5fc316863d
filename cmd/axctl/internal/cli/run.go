package cli

import (
	"errors"
	"os"
	"strings"

	"appswitch.io/services/nodeagent/launch/options"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRun describes `ax run`: its help and completion. The command itself is carried out before this package's
// dependencies are initialised, by launch/early, because starting a program must cost milliseconds.
func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] [--] PROGRAM [ARGUMENTS]...",
		Short: "Run a program under AppSwitch",
		Long: `Run a program under AppSwitch. It keeps its process id, terminal, signals and exit status, as if it had been started
directly; only its network is AppSwitch's. Options end at the program's name: what follows belongs to the program.

A new network namespace needs root, or user namespaces; --new-netns=false needs neither. Addresses, names and labels need root,
a daemon of one's own, or a rule of the daemon (--admit). Options may also stand right
after 'ax', without the word run.`,
		Example: `  sudo ax run --ip 1.1.1.1 --name web nginx -g 'daemon off;'
  sudo ax run --ip 2001:db8::1 --name web6 nginx -g 'daemon off;'
  sudo ax run -- curl -I web
  sudo ax run --labels role=test --user alice curl -I 1.1.1.1
  sudo ax --labels role=test curl -I 1.1.1.1
  ax run --new-netns=false curl -I 1.1.1.1
  docker run --net none -v /var/run/appswitch:/var/run/appswitch -v /usr/bin/ax:/usr/bin/ax \
      --entrypoint /usr/bin/ax nginx run --ip 1.1.1.1 nginx -g 'daemon off;'`,
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("run has to be the first word: ax run [OPTIONS] [--] PROGRAM [ARGUMENTS]")}
		},
		// The program, then its arguments, which are as likely files as anything.
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 && !strings.Contains(prefix, "/") {
				return programs(prefix), cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.SetInterspersed(false)
	for _, o := range options.Table {
		addOption(fs, o)
	}
	return cmd
}

// addOption adds an option of `ax run` for help and completion.
func addOption(fs *pflag.FlagSet, o options.Option) {
	fs.Var(&option{o}, o.Name, o.Help)
	f := fs.Lookup(o.Name)
	f.Hidden = o.Hidden
	if o.Kind == options.Bool {
		f.NoOptDefVal = "true"
	}
}

// option is the pflag.Value of an option of `ax run`. It keeps no value: nothing reads it.
type option struct{ options.Option }

func (o *option) String() string   { return o.Default }
func (o *option) Set(string) error { return nil }

func (o *option) Type() string {
	if o.Kind == options.Bool {
		return "bool"
	}
	return o.Arg
}

// maxPrograms bounds the suggestions of a completion.
const maxPrograms = 1000

// programs returns the commands of PATH that start with prefix.
func programs(prefix string) []string {
	seen := map[string]bool{}
	var out []string
	for _, dir := range strings.Split(os.Getenv("PATH"), string(os.PathListSeparator)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // PATH may name what is not there
		}
		for _, e := range entries {
			name := e.Name()
			if !strings.HasPrefix(name, prefix) || seen[name] || e.IsDir() {
				continue
			}
			seen[name] = true
			if out = append(out, name); len(out) == maxPrograms {
				return out
			}
		}
	}
	return out
}
