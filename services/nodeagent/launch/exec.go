package launch

import (
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

const shell = "/bin/sh" // runs scripts that don't name an interpreter

// execute replaces the process by the program. syscall.Exec undoes what the Go runtime did to the limit of open
// files, and handlers end with the exec; restoreSignals takes care of the rest.
func execute(program string, argv, env []string) error {
	restoreSignals()
	err := syscall.Exec(program, argv, env)
	if err == syscall.ENOEXEC {
		err = syscall.Exec(shell, append([]string{shell, program}, argv[1:]...), env)
	}
	code := exitNotExecutable
	if err == syscall.ENOENT { // the interpreter of a script, since the program was found
		code = exitNotFound
	}
	return &exitError{code, text.Wrap(err, program)}
}
