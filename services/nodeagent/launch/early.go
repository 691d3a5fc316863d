package launch

import (
	"errors"
	"runtime"
	"syscall"

	"appswitch.io/services/nodeagent/launch/dirs"
	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/options"
	"appswitch.io/services/nodeagent/launch/wire"
)

// Names under which the binary is started by itself (argv[0]).
const (
	holderName = "ax-holder" // what stays behind the program: see holder.go
	stageName  = "ax-launch" // the child of a supervisor: see stage.go
)

// What earlier inits leave for later ones.
var (
	looked  bool         // the command line has been looked at
	pending *Supervision // what Early could not finish
)

// Fast is Early for a caller that package os is not initialised for yet.
func Fast() {
	if line, err := readFile("/proc/self/cmdline"); err == nil && len(line) > 1 {
		Early(text.Split(string(line[:len(line)-1]), 0))
	}
}

// Late returns what Fast could not finish, or nil. It does Fast's work where there is no /proc.
func Late(args []string) *Supervision {
	if !looked {
		Early(args)
	}
	s := pending
	pending = nil
	return s
}

// Early runs a command line of `ax run` to its end and does not return then, unless a supervisor is needed; from any
// other it returns at once. It must be called on the main thread, from an init function. It leaves requests for help
// to the command line tool.
func Early(args []string) {
	looked = true
	if len(args) < 2 {
		return
	}
	switch args[0] {
	case holderName:
		if state, ok := syscall.Getenv(holderEnv); ok {
			runtime.LockOSThread()
			syscall.Exit(holderMain(state))
		}
		return
	case stageName:
		syscall.Exit(report(stage(args[1:])))
	}
	rest := args[1:]
	switch {
	case rest[0] == "run":
		rest = rest[1:]
	case options.IsShorthand(rest[0]):
	default:
		return
	}
	o, err := options.Parse(rest, setting, isProgram)
	if errors.Is(err, options.ErrHelp) {
		return
	}
	if err == nil {
		pending, err = run(o, rest)
	}
	if pending == nil {
		syscall.Exit(report(err))
	}
}

func getenv(key string) string {
	value, _ := syscall.Getenv(key)
	return value
}

// setting is getenv for the options: whose daemon serves this user, if the variable doesn't say?
func setting(key string) string {
	if key != "AX_RUN_DIR" {
		return getenv(key)
	}
	return dirs.User{UID: syscall.Geteuid(), Getenv: getenv, Exists: exists}.Find()
}

// Exit codes of `ax run` itself; the others are the program's.
const (
	exitUsage         = 2
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the number of the signal that ended the program
)

// exitError ends `ax run` with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
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
	complain(err.Error())
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	var refusal *wire.Error
	if errors.As(err, &refusal) && refusal.Code == wire.CodeInvalid {
		return exitUsage
	}
	return exitFailed
}

// complain writes one line for the user, in one piece.
func complain(message string) {
	_, _ = syscall.Write(2, []byte(text.Join("ax run: ", message, "\n")))
}
