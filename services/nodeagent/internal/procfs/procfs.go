// Package procfs reads what /proc tells about a task: whose it is, its namespaces, its name servers.
//
// Invariant: what is returned belongs to the task that had the id when the call began: a pidfd is opened first, and it
// is checked afterwards that the task still lives. What lies in the task's files is hostile input. /proc must be that
// of the initial process-id namespace. Start reading at [Open].
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Task is a thread and the process to which it belongs.
type Task struct {
	TID, TGID int
	PIDFD     int // of the thread, or of its process before Linux 6.9; whoever holds the Task closes it
	UID, EUID uint32
	GID, EGID uint32
}

// Close closes the pidfd.
func (t *Task) Close() {
	if t.PIDFD >= 0 {
		unix.Close(t.PIDFD)
		t.PIDFD = -1
	}
}

// Open finds the task of a thread id. The error wraps ESRCH if there is none.
func Open(tid int) (Task, error) {
	pidfd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) {
		return openProcess(tid)
	}
	if err != nil {
		return Task{}, fmt.Errorf("open task %d: %w", tid, err)
	}
	return identify(tid, pidfd)
}

// openProcess serves kernels without thread pidfds: the process stands for the thread.
func openProcess(tid int) (Task, error) {
	t, err := readStatus(tid)
	if err != nil {
		return Task{}, fmt.Errorf("open task %d: %w", tid, err)
	}
	pidfd, err := unix.PidfdOpen(t.TGID, 0)
	if err != nil {
		return Task{}, fmt.Errorf("open task %d: process %d: %w", tid, t.TGID, err)
	}
	process := t.TGID
	t, err = identify(tid, pidfd)
	if err == nil && t.TGID != process {
		t.Close()
		return Task{}, fmt.Errorf("open task %d: %w", tid, unix.ESRCH)
	}
	return t, err
}

// identify reads the identity of a task whose pidfd is open, and owns the pidfd.
func identify(tid, pidfd int) (Task, error) {
	t, err := readStatus(tid)
	if err == nil {
		// The id can't have been given to another task while the one of the pidfd was there.
		err = alive(pidfd)
	}
	if err != nil {
		unix.Close(pidfd)
		return Task{}, fmt.Errorf("open task %d: %w", tid, err)
	}
	t.PIDFD = pidfd
	return t, nil
}

// alive returns ESRCH if the task of a pidfd has been reaped.
func alive(pidfd int) error {
	err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

func readStatus(tid int) (Task, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if errors.Is(err, os.ErrNotExist) {
		err = unix.ESRCH
	}
	if err != nil {
		return Task{}, err
	}
	t, err := parseStatus(b)
	t.TID = tid
	return t, err
}

// parseStatus reads proc_pid_status(5).
func parseStatus(b []byte) (Task, error) {
	t := Task{PIDFD: -1}
	found := 0
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		var into []*uint32
		var tgid uint32
		switch string(key) {
		case "Tgid":
			into = []*uint32{&tgid}
		case "Uid":
			into = []*uint32{&t.UID, &t.EUID}
		case "Gid":
			into = []*uint32{&t.GID, &t.EGID}
		default:
			continue
		}
		fields := bytes.Fields(value)
		if len(fields) < len(into) {
			return t, fmt.Errorf("status: %s has %d values", key, len(fields))
		}
		for i, p := range into {
			n, err := strconv.ParseUint(string(fields[i]), 10, 32)
			if err != nil {
				return t, fmt.Errorf("status: %s: %w", key, err)
			}
			*p = uint32(n)
		}
		if string(key) == "Tgid" {
			t.TGID = int(tgid)
		}
		if found++; found == 3 {
			return t, nil
		}
	}
	return t, errors.New("status: Tgid, Uid or Gid is missing")
}

// NetnsInode identifies the network namespace of a task.
func NetnsInode(pid int) (dev, ino uint64, err error) { return nsInode(pid, "net") }

// UsernsInode identifies the user namespace of a task.
func UsernsInode(pid int) (dev, ino uint64, err error) { return nsInode(pid, "user") }

func nsInode(pid int, kind string) (dev, ino uint64, err error) {
	path := "/proc/" + strconv.Itoa(pid) + "/ns/" + kind
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Dev, st.Ino, nil
}
