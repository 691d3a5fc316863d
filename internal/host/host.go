// Package host says what a daemon needs of the machine below it, and what to do where that is missing.
//
// Its invariant: every message names what is wrong and the way out. Only [Release] and [FreeSpace] look at the machine.
// Start reading at [CheckKernel].
package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Version is a version of Linux: its first two numbers.
type Version [2]int

// OldestKernel is the first with SECCOMP_ADDFD_FLAG_SEND, without which no socket can be given to an application.
var OldestKernel = Version{5, 14}

// Less reports whether v came before w.
func (v Version) Less(w Version) bool { return v[0] < w[0] || v[0] == w[0] && v[1] < w[1] }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v[0], v[1]) }

// ParseRelease reads the version of a release such as "6.1.0-18-amd64".
func ParseRelease(s string) (Version, error) {
	var v Version
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

// CheckKernel refuses releases of Linux that lack what intercepting calls takes. One whose version can't be read passes:
// what it lacks, if anything, shows when it is used.
func CheckKernel(release string) error {
	if v, err := ParseRelease(release); err == nil && v.Less(OldestKernel) {
		return fmt.Errorf("kernel %s is too old for intercepting calls: upgrade to Linux %s or later", release, OldestKernel)
	}
	return nil
}

// Release returns the release of the running kernel, or "" where the kernel doesn't tell.
func Release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// DirError says what to do about an error in a directory that an option names.
func DirError(flag string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s: %w (free some space, or name another directory)", flag, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: %w (name a directory that can be written)", flag, err)
	}
	return fmt.Errorf("%s: %w (run as root, or name another directory)", flag, err)
}

// FreeSpace returns how many bytes an unprivileged process may still write on the file system of a directory.
func FreeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a block has a positive size
}

// CheckSpace reports whether a directory has as much space left as it needs, both in bytes.
func CheckSpace(flag, dir string, free, need uint64) error {
	if free >= need {
		return nil
	}
	return fmt.Errorf("%s: %s has %d MiB of space left, and %d MiB are needed (free some, or name another directory)", flag, dir, free>>20, need>>20)
}
