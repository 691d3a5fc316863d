// Package join enters the namespaces of a running application.
//
// Invariant: the calling thread enters all of them or the process does not go on: a command never runs in a mixture that
// nobody asked for. Start reading at [Run].
package join

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// entered are the namespaces that are entered, in this order: that of mounts last, because /proc is another one after it.
var entered = []struct {
	name string
	flag int
}{
	{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
}

// ErrForeignUser says that an application has a user namespace of its own.
var ErrForeignUser = errors.New("it has a user namespace of its own, in which this user's rights mean nothing")

// Run runs a command line of this very program (args, without the program's name) in the namespaces of a process. Where
// those of process ids are the same it becomes the command and does not return; otherwise it returns the command's exit
// status. It must be the last thing that a process does: the calling thread stays in the namespaces.
func Run(pid int, name string, args []string) (code int, err error) {
	runtime.LockOSThread() // never unlocked
	if differs, err := differ(pid, "user"); err != nil || differs {
		if err == nil {
			err = ErrForeignUser
		}
		return 0, err
	}
	self, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open this program: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	child, err := enter(pid)
	if err != nil {
		return 0, err
	}
	if os.Chdir(dir) != nil { // it is not there in the other view of the file system
		if err := os.Chdir("/"); err != nil {
			return 0, err
		}
	}
	// The program may not be in that view, but the descriptor is.
	path := "/proc/self/fd/" + strconv.Itoa(self)
	argv := append([]string{name}, args...)
	if !child {
		return 0, fmt.Errorf("execute this program: %w", syscall.Exec(path, argv, os.Environ()))
	}
	return runChild(&exec.Cmd{Path: path, Args: argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
}

// runChild runs a command to its end, passes on to it what this process is told, and returns its exit status. What the
// terminal sends, the command gets from the terminal.
func runChild(cmd *exec.Cmd) (code int, err error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, os.Interrupt, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("execute this program: %w", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends with the command
		for {
			select {
			case <-ended:
				return
			case s := <-signals:
				if s == unix.SIGTERM || s == unix.SIGHUP {
					_ = cmd.Process.Signal(s) // it may have ended
				}
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("execute this program: %w", err)
}

// differ reports whether a process is in another namespace of a kind than this thread.
func differ(pid int, kind string) (bool, error) {
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/"+kind, &own); err != nil {
		return false, fmt.Errorf("look at the own %s namespace: %w", kind, err)
	}
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &other); err != nil {
		return false, fmt.Errorf("look at the %s namespace of process %d: %w", kind, pid, err)
	}
	return own.Dev != other.Dev || own.Ino != other.Ino, nil
}

// enter moves the calling thread into the namespaces of a process, and tells whether only children are in its namespace
// of process ids.
func enter(pid int) (child bool, err error) {
	type target struct {
		name     string
		fd, flag int
	}
	var targets []target
	defer func() {
		for _, t := range targets {
			_ = unix.Close(t.fd)
		}
	}()
	for _, ns := range entered { // all are opened before any is entered: /proc changes
		differs, err := differ(pid, ns.name)
		if err != nil {
			return false, err
		}
		if !differs {
			continue
		}
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, fmt.Errorf("open the %s namespace of process %d: %w", ns.name, pid, err)
		}
		targets = append(targets, target{ns.name, fd, ns.flag})
	}
	// A thread that shares its root with others may not leave its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return false, fmt.Errorf("separate this thread's view of the file system: %w", err)
	}
	for _, t := range targets {
		if err := unix.Setns(t.fd, t.flag); err != nil {
			return false, fmt.Errorf("enter the %s namespace of process %d: %w", t.name, pid, err)
		}
		child = child || t.flag == unix.CLONE_NEWPID
	}
	return child, nil
}
