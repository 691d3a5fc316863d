// Package cli is the command line: what `axctl` and its link `ax` understand.
//
// Invariant: results go to standard output, everything else to standard error, and the exit status is 0 for success,
// 1 for failure (of diff and policy replay: differences), 2 for a command line that can't be understood (the message then names the nearest
// thing that can). What runs another program ends as that does.
// Commands hold no logic of the product: they ask the daemon over REST and write what it says.
// Start reading at [Main].
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"appswitch.io/cmd/axctl/internal/daemon"
	"appswitch.io/internal/version"
	"appswitch.io/services/nodeagent/launch/options"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitTrouble is the failure of a command whose status 1 is an answer.
	exitTrouble = 2
)

// usageError is a command line that can't be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// troubleError is the failure of a command whose exit status 1 says something else.
type troubleError struct{ error }

func (e troubleError) Unwrap() error { return e.error }

// statusError ends a command with the status of another program, 0 included.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// errReported fails a command that has already written why.
var errReported = errors.New("reported")

// Main runs the command line args, the program's name first, and returns the exit status.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	name := "ax"
	if len(args) > 0 {
		if filepath.Base(args[0]) == "axctl" {
			name = "axctl"
		}
		args = args[1:]
	}
	if len(args) > 0 && options.IsShorthand(args[0]) { // `ax --labels role=test --help`: the rest never gets here
		args = append([]string{"run"}, args...)
	}
	root := newRoot(name)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteC()
	var usage usageError
	var trouble troubleError
	var status statusError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "%s: %v\nSee '%s --help'.\n", name, err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(errOut, "%s: %v\n", name, err)
	if errors.As(err, &trouble) {
		return exitTrouble
	}
	return exitFailed
}

func newRoot(name string) *cobra.Command {
	root := &cobra.Command{
		Use:   name,
		Short: "AppSwitch: service discovery, access control and traffic management for unmodified programs",
		Long: `AppSwitch runs programs so that they reach each other at addresses and names of their own, whatever the network
underneath, and only where their labels allow it. Nothing about the programs changes, and no proxy carries their bytes.`,
		Example: `  sudo ax daemon                                          start what this machine needs
  sudo ax run --ip 1.1.1.1 --name web nginx -g 'daemon off;'
  sudo ax run -- curl -I web                              reach it by name
  sudo ax --labels role=test curl -I 1.1.1.1              or by address, as a client with labels
  ax get servers                                          see who serves what, and where
  ax observe --verdict deny                               see what is refused, as it happens
  ax explain --labels role=test --to 1.1.1.1:80           see why a connection goes where it goes`,
		Version:       version.Get().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate(name + " {{.Version}}\n")
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	group(root)
	root.AddCommand(
		newDaemon(), newRun(), newExec(), newGet(), newCreate(), newDelete(), newApply(), newDiff(), newPolicy(), newDrain(), newExplain(), newObserve(), newTop(),
		newStatus(), newConnectivity(), newSysdump(), newConfig(), newCheck(), newVersion(),
	)
	root.SetHelpCommand(newHelp())
	root.InitDefaultCompletionCmd("completion")
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		group(completion) // cobra answers an unknown shell with its help, and success
	}
	root.SetFlagErrorFunc(flagError)
	makeUsageErrors(root)
	return root
}

// group gives a command that only holds others its behaviour when none of them is named.
func group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		if !cmd.HasParent() {
			return cmd.Help()
		}
		return usagef("%s what? One of: %s", cmd.CommandPath(), strings.Join(commandNames(cmd), ", "))
	}
}

// makeUsageErrors lets the complaints of cobra about arguments exit as usage errors, in every command below cmd.
func makeUsageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		makeUsageErrors(sub)
	}
}

func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &invalid) && errors.Is(err, daemon.ErrUnavailable):
		return usagef("--%s: %w", invalid.GetFlag().Name, daemon.ErrUnavailable)
	case !errors.As(err, &unknown):
		return usageError{err}
	// `ax nosuch --flag`: the command is what is wrong.
	case cmd.HasSubCommands() && cmd.Flags().NArg() > 0:
		return unknownCommand(cmd, cmd.Flags().Arg(0))
	case unknown.GetSpecifiedShortnames() != "":
		return usageError{err}
	}
	return usagef("%w%s", err, didYouMean("--", unknown.GetSpecifiedName(), flagNames(cmd)))
}

func unknownCommand(cmd *cobra.Command, name string) error {
	return usagef("unknown command %q for %q%s", name, cmd.CommandPath(), didYouMean("", name, commandNames(cmd)))
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if !cmd.HasParent() { // options of `ax run` may stand right after `ax`
		for _, o := range options.Table {
			if o.Shorthand && !o.Hidden {
				names = append(names, o.Name)
			}
		}
	}
	return names
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]...",
		Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageError{err}
			}
			if target.HasSubCommands() && len(rest) > 0 {
				return unknownCommand(target, rest[0])
			}
			target.InitDefaultHelpFlag()
			target.InitDefaultVersionFlag()
			return target.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			target, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return commandNames(target), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// environment returns a variable, or fallback if it is unset or empty: compose files write AX_…= for unset.
func environment(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
