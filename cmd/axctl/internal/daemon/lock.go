package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"appswitch.io/internal/host"
	"golang.org/x/sys/unix"
)

// lockName is the file in the state directory that a running daemon holds locked. It contains the process id.
const lockName = "daemon.lock"

// lockState makes sure that no other daemon uses the state directory. The lock ends with the process, however it ends;
// the file stays.
func lockState(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, host.DirError("--state-dir", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, host.DirError("--state-dir", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(f.Name())
		err = fmt.Errorf("lock %s: %w", f.Name(), err)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("a daemon uses %s already (process %s): stop it, or give this one a --state-dir and a --run-dir of its own",
				dir, strings.TrimSpace(string(holder)))
		}
		return nil, errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(host.DirError("--state-dir", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
