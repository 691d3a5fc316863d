package host

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckKernel(t *testing.T) {
	for release, want := range map[string]string{
		"6.1.0-18-amd64":       "",
		"5.14.0-427.el9":       "",
		"5.13.19":              "kernel 5.13.19 is too old for intercepting calls: upgrade to Linux 5.14 or later",
		"4.19.0-26-cloud-arm":  "kernel 4.19.0-26-cloud-arm is too old",
		"10.0":                 "",
		"2.6.66":               "too old",
		"":                     "",
		"unknown":              "",
		"6.x":                  "",
		"5.4-gentoo-by.myself": "too old",
	} {
		err := CheckKernel(release)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", release, err, want)
		}
	}
	if _, err := ParseRelease(Release()); err != nil {
		t.Errorf("the running kernel: %v", err)
	}
}

func TestDirError(t *testing.T) {
	for errno, want := range map[error]string{
		unix.EACCES: "--state-dir: mkdir /x: permission denied (run as root, or name another directory)",
		unix.EROFS:  "--state-dir: mkdir /x: read-only file system (name a directory that can be written)",
		unix.ENOSPC: "--state-dir: mkdir /x: no space left on device (free some space, or name another directory)",
		unix.EDQUOT: "--state-dir: mkdir /x: disk quota exceeded (free some space, or name another directory)",
	} {
		err := DirError("--state-dir", &fs.PathError{Op: "mkdir", Path: "/x", Err: errno})
		if got := fmt.Sprint(err); got != want || !errors.Is(err, errno) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if err := DirError("--state-dir", nil); err != nil {
		t.Error(err)
	}
}

func TestCheckSpace(t *testing.T) {
	if err := CheckSpace("--state-dir", "/x", 16<<20, 16<<20); err != nil {
		t.Error(err)
	}
	const want = "--state-dir: /x has 3 MiB of space left, and 16 MiB are needed (free some, or name another directory)"
	if err := CheckSpace("--state-dir", "/x", 4<<20-1, 16<<20); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if free, err := FreeSpace(t.TempDir()); err != nil || free == 0 {
		t.Errorf("free space of the temporary directory: %d, %v", free, err)
	}
	if _, err := FreeSpace("/nonexistent"); err == nil {
		t.Error("a directory that is not there has free space")
	}
}
