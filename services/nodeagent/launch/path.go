package launch

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // where PATH is not set

// findProgram looks a program up as a shell does, with a shell's exit codes.
func findProgram(name string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			code := exitNotExecutable
			if err == syscall.ENOENT || err == syscall.ENOTDIR {
				code = exitNotFound
			}
			return "", &exitError{code, fmt.Errorf("%s: %s", name, errnoText(err))}
		}
		return name, nil
	}
	path, ok := os.LookupEnv("PATH")
	if !ok {
		path = defaultPath
	}
	var refused error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if err == syscall.EACCES && refused == nil {
			refused = &exitError{exitNotExecutable, fmt.Errorf("%s: permission denied", file)}
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", &exitError{exitNotFound, fmt.Errorf("%s: command not found", name)}
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

// errnoText is the text of an error as a shell prints it.
func errnoText(err error) string {
	switch err {
	case syscall.EACCES:
		return "permission denied"
	case syscall.EISDIR:
		return "is a directory"
	case syscall.ENOENT:
		return "no such file or directory"
	}
	return err.Error()
}
