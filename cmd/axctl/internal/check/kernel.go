package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Versions of Linux that matter: ADDFD_SEND, without which no socket can be given to an application; synchronous
// wake-ups, without which every intercepted call costs more.
var (
	oldestKernel = [2]int{5, 14}
	fastKernel   = [2]int{6, 6}
)

func (o Options) kernel() Result {
	const name = "kernel"
	data, err := os.ReadFile(filepath.Join(o.Proc, "sys/kernel/osrelease"))
	if err != nil {
		return failed(name, "mount /proc", "%v", err)
	}
	release := strings.TrimSpace(string(data))
	v, err := parseRelease(release)
	switch {
	case err != nil:
		return warning(name, "AppSwitch needs Linux 5.14 or later", "%v", err)
	case older(v, oldestKernel):
		return failed(name, "upgrade to Linux 5.14 or later", "Linux %s is too old", release)
	case older(v, fastKernel):
		return warning(name, "upgrade to Linux 6.6 or later for faster calls", "Linux %s works, with slower socket calls", release)
	}
	return ok(name, "Linux %s", release)
}

// parseRelease reads the first two numbers of a release such as "6.1.0-18-amd64".
func parseRelease(s string) ([2]int, error) {
	var v [2]int
	parts := strings.SplitN(s, ".", 3)
	if len(parts) < 2 {
		return v, fmt.Errorf("release %q: want a version such as 6.1.0", s)
	}
	for i := range v {
		digits := parts[i]
		if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = digits[:end]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return v, fmt.Errorf("release %q: want a version such as 6.1.0", s)
		}
		v[i] = n
	}
	return v, nil
}

func older(v, than [2]int) bool {
	return v[0] < than[0] || v[0] == than[0] && v[1] < than[1]
}

// minOpenFiles is the hard limit below which a busy node runs out: each waiting call holds a descriptor.
const minOpenFiles = 65536

func openFiles() Result {
	const name = "open files"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return warning(name, "check `ulimit -Hn`", "the limit can't be read: %v", err)
	}
	if limit.Max < minOpenFiles {
		return warning(name, fmt.Sprintf("raise it to %d: `ulimit -Hn`, or LimitNOFILE= of systemd", minOpenFiles), "at most %d", limit.Max)
	}
	if limit.Max == unix.RLIM_INFINITY {
		return ok(name, "unlimited")
	}
	return ok(name, "at most %d", limit.Max)
}
