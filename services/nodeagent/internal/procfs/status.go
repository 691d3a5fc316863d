package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Relative finds the process that another process means by an id: in a container, its ids are not ours.
func Relative(to, pid int) (int, error) {
	ids, err := statusField(to, "NSpid")
	if err != nil {
		return 0, err
	}
	if len(ids) == 1 {
		return pid, nil // it sees what we see
	}
	want := strconv.Itoa(pid)
	if ids[len(ids)-1] == want {
		return to, nil // itself: most are
	}
	dev, ino, err := nsInode(to, "pid")
	if err != nil {
		return 0, err
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range all {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		ids, err := statusField(id, "NSpid")
		if err != nil || ids[len(ids)-1] != want {
			continue
		}
		if d, i, err := nsInode(id, "pid"); err == nil && d == dev && i == ino {
			return id, nil
		}
	}
	return 0, fmt.Errorf("process %d of the process-id namespace of %d: %w", pid, to, unix.ESRCH)
}

// Parent returns the process id of a process's parent.
func Parent(pid int) (int, error) {
	ids, err := statusField(pid, "PPid")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(ids[0])
}

// statusField returns the words of one line of proc_pid_status(5), at least one.
func statusField(pid int, field string) ([]string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		if key, value, _ := bytes.Cut(line, []byte(":")); string(key) == field {
			var words []string
			for _, w := range bytes.Fields(value) {
				words = append(words, string(w))
			}
			if len(words) > 0 {
				return words, nil
			}
		}
	}
	return nil, fmt.Errorf("status of process %d: no %s", pid, field)
}

// Capable reports whether a process has a capability in effect, in its own user namespace.
func Capable(pid int, capability uint) (bool, error) {
	words, err := statusField(pid, "CapEff")
	if err != nil {
		return false, err
	}
	set, err := strconv.ParseUint(words[0], 16, 64)
	if err != nil {
		return false, fmt.Errorf("capabilities of process %d: %w", pid, err)
	}
	return set&(1<<capability) != 0, nil
}
