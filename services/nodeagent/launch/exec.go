package launch

import (
	"fmt"
	"syscall"
)

const shell = "/bin/sh" // runs scripts that don't name an interpreter

// execute replaces the process by the program. syscall.Exec undoes what the Go runtime changed: the limit of open
// files; signal handlers end with the exec, and restoreSignals takes care of the ignored ones.
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
	return &exitError{code, fmt.Errorf("%s: %s", program, errnoText(err))}
}
