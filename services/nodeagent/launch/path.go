package launch

import (
	"errors"
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // where PATH is not set

// findProgram looks a program up as a shell does, with a shell's exit codes.
func findProgram(name string) (string, error) {
	if text.Contains(name, '/') {
		if err := executable(name); err != nil {
			code := exitNotExecutable
			if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
				code = exitNotFound
			}
			return "", &exitError{code, text.Wrap(err, name)}
		}
		return name, nil
	}
	path, ok := syscall.Getenv("PATH")
	if !ok {
		path = defaultPath
	}
	var refused error
	for _, dir := range text.Split(path, ':') {
		if dir == "" {
			dir = "."
		}
		file := text.Join(dir, "/", name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, syscall.EACCES) && refused == nil {
			refused = &exitError{exitNotExecutable, text.Wrap(err, file)}
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", &exitError{exitNotFound, text.Error(name, ": command not found")}
}

// isProgram reports whether a word names a program.
func isProgram(name string) bool {
	_, err := findProgram(name)
	return err == nil
}

// executable returns nil or the errno with which exec would fail.
func executable(file string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return syscall.EISDIR
	}
	const executeOK, effectiveIDs = 1, 0x200
	if err := syscall.Faccessat(atFDCWD, file, executeOK, effectiveIDs); err != nil {
		return syscall.EACCES
	}
	return nil
}

const atFDCWD = -0x64
