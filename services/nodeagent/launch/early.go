package launch

import (
	"errors"
	"os"
	"runtime"

	"appswitch.io/services/nodeagent/launch/options"
)

// Names under which the binary is started by itself (argv[0]).
const (
	holderName = "ax-holder" // what stays behind the program: see holder.go
	stageName  = "ax-launch" // the child of a supervisor: see supervise.go
)

// Early runs a command line of `ax run` to its end and does not return then; from any other it returns at once.
// It must be called on the main thread, from an init function. It leaves requests for help to the command line tool.
func Early(args []string) {
	if len(args) < 2 {
		return
	}
	switch args[0] {
	case holderName:
		if state, ok := os.LookupEnv(holderEnv); ok {
			runtime.LockOSThread()
			os.Exit(holderMain(state))
		}
		return
	case stageName:
		os.Exit(stage(args[1:]))
	}
	rest := args[1:]
	switch {
	case rest[0] == "run":
		rest = rest[1:]
	case options.IsShorthand(rest[0]):
	default:
		return
	}
	o, err := options.Parse(rest, os.Getenv, isProgram)
	if errors.Is(err, options.ErrHelp) {
		return
	}
	os.Exit(start(o, err))
}

// Main runs a command line of `ax run`, given what follows the word run. If all goes well it doesn't return: the
// process has become the program. Otherwise the message is on standard error and the result is the exit code.
func Main(args []string) int {
	o, err := options.Parse(args, os.Getenv, isProgram)
	return start(o, err)
}

func start(o options.Run, err error) int {
	if err == nil {
		err = run(o)
	}
	return report(err)
}

// Exit codes of `ax run` itself; the others are the program's.
const (
	exitUsage         = 2
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// exitError ends `ax run` with a code of its own; a nil err says nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return "exit"
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// report prints an error and chooses the exit code.
func report(err error) int {
	if err == nil {
		return 0
	}
	var usage *options.UsageError
	if errors.As(err, &usage) {
		complain(usage.Message + "\nSee 'ax run --help'.")
		return exitUsage
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			complain(exit.err.Error())
		}
		return exit.code
	}
	complain(err.Error())
	return exitFailed
}

// complain writes one line for the user, in one piece.
func complain(message string) {
	_, _ = os.Stderr.WriteString("ax run: " + message + "\n")
}
