package check

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"appswitch.io/internal/host"
	"golang.org/x/sys/unix"
)

// Versions of Linux that matter: ADDFD_SEND, without which no socket can be given to an application; synchronous
// wake-ups, without which every intercepted call costs more.
var (
	oldestKernel = host.OldestKernel
	fastKernel   = host.Version{6, 6}
)

func (o Options) kernel() Result {
	const name = "kernel"
	data, err := os.ReadFile(filepath.Join(o.Proc, "sys/kernel/osrelease"))
	if err != nil {
		return failed(name, "mount /proc", "%v", err)
	}
	release := strings.TrimSpace(string(data))
	v, err := host.ParseRelease(release)
	switch {
	case err != nil:
		return warning(name, "AppSwitch needs Linux 5.14 or later", "%v", err)
	case v.Less(oldestKernel):
		return failed(name, "upgrade to Linux 5.14 or later", "Linux %s is too old", release)
	case v.Less(fastKernel):
		return warning(name, "upgrade to Linux 6.6 or later for faster calls", "Linux %s works, with slower socket calls", release)
	}
	return ok(name, "Linux %s", release)
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
