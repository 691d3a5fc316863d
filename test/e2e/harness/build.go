package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// systemPath is where the laboratory's programs are looked for.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// programs is where the sources of the tests' own programs are, seen from the tests' directory.
const programs = "programs"

// Program returns the absolute name of a source file that a test runs as it is.
func (l *Lab) Program(name string) string {
	l.t.Helper()
	path, err := filepath.Abs(filepath.Join(programs, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	// The laboratory's users need not be able to read the source tree.
	text, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.WriteFile(filepath.Join("programs", name), string(text))
}

// GoProgram builds one of the tests' own Go programs, statically, and returns its name.
func (l *Lab) GoProgram(name string) string {
	l.t.Helper()
	out := l.Path("bin", name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	l.build([]string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-o", out, "./"+filepath.Join(programs, name))
	return out
}

// CrashingAgent builds a node agent that kills itself at a crash point (services/nodeagent/internal/crashpoint).
func (l *Lab) CrashingAgent() string {
	l.t.Helper()
	out := l.Path("bin", "nodeagentd")
	l.build([]string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-tags=crashpoints", "-o", out, "appswitch.io/services/nodeagent/cmd/nodeagentd")
	return out
}

// MuslProgram builds one of the tests' own C programs with musl, statically, and returns its name.
func (l *Lab) MuslProgram(name string) string {
	l.t.Helper()
	out := l.Path("bin", name)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		l.t.Fatal(err)
	}
	l.build(nil, "musl-gcc", "-static", "-Wall", "-Werror", "-o", out, filepath.Join(programs, name+".c"))
	return out
}

// CProgram builds one of the tests' own C programs, a file or all files of a directory, with the system's C library and
// returns its name.
func (l *Lab) CProgram(name string) string {
	l.t.Helper()
	out := l.Path("bin", name+"-libc")
	sources, err := filepath.Glob(filepath.Join(programs, name, "*.c"))
	if err == nil {
		err = os.MkdirAll(filepath.Dir(out), 0o755)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	if len(sources) == 0 {
		sources = []string{filepath.Join(programs, name+".c")}
	}
	l.build(nil, append([]string{"gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", out}, sources...)...)
	return out
}

func (l *Lab) build(env []string, args ...string) {
	l.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// Need returns the absolute name of a program that the machine must have; it fails the test, with the way out, if it is
// missing. Only the system's directories count: wrappers in others (version managers, say) start slowly.
func (l *Lab) Need(program string) string {
	l.t.Helper()
	for dir := range strings.SplitSeq(systemPath, ":") {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	l.t.Fatalf("%s is missing: run scripts/provision.sh test, which `make test` does", program)
	return ""
}
