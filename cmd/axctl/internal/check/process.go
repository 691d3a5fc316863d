package check

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Inode numbers of the host's own namespaces, fixed since Linux 3.8 (include/uapi/linux/nsfs.h, linux/proc_ns.h).
const (
	hostPIDNamespace  = "pid:[4026531836]"
	hostUserNamespace = "user:[4026531837]"
)

// needed are the capabilities that the daemon uses as root, by their numbers.
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN"}, {unix.CAP_SYS_PTRACE, "SYS_PTRACE"},
	{unix.CAP_NET_ADMIN, "NET_ADMIN"}, {unix.CAP_NET_BIND_SERVICE, "NET_BIND_SERVICE"},
}

func (o Options) privileges() Result {
	const name = "privileges"
	status, err := os.ReadFile(filepath.Join(o.Proc, "self/status"))
	if err != nil {
		return failed(name, "mount /proc", "%v", err)
	}
	var have uint64
	for line := range strings.SplitSeq(string(status), "\n") {
		if hex, is := strings.CutPrefix(line, "CapEff:"); is {
			if have, err = strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err != nil {
				return warning(name, "run as root", "CapEff of /proc/self/status is unreadable: %v", err)
			}
		}
	}
	var missing []string
	for _, c := range needed {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	switch user, _ := os.Readlink(filepath.Join(o.Proc, "self/ns/user")); {
	case len(missing) == len(needed):
		return warning(name, "sudo ax daemon", "without root the daemon serves programs of this user only")
	case len(missing) > 0:
		return failed(name, "run as root; in a container: privileged, or --cap-add "+strings.Join(missing, ","), "missing %s", strings.Join(missing, ", "))
	case user != "" && user != hostUserNamespace:
		return warning(name, "sudo ax daemon, outside the user namespace", "root of a user namespace: the daemon serves programs of that namespace only")
	}
	return ok(name, "root")
}

func (o Options) pidNamespace() Result {
	const name = "PID namespace"
	ns, err := os.Readlink(filepath.Join(o.Proc, "self/ns/pid"))
	switch {
	case err != nil:
		return failed(name, "mount /proc", "%v", err)
	case ns != hostPIDNamespace:
		return failed(name, "use the host's: `pid: host` in compose files, --pid=host, hostPID: true", "the agent would not see the processes that it serves")
	}
	return ok(name, "the host's")
}

// netNamespace compares with that of a process that is in the host's: a kernel thread, which anyone may look at, or init.
func (o Options) netNamespace() Result {
	const name = "network namespace"
	own, err := os.Readlink(filepath.Join(o.Proc, "self/ns/net"))
	if err != nil {
		return failed(name, "mount /proc", "%v", err)
	}
	reference := "1"
	if comm, err := os.ReadFile(filepath.Join(o.Proc, "2/comm")); err == nil && strings.TrimSpace(string(comm)) == "kthreadd" {
		reference = "2"
	}
	host, err := os.Readlink(filepath.Join(o.Proc, reference, "ns/net"))
	switch {
	case errors.Is(err, os.ErrPermission):
		return ok(name, "this process's; that of the host is root's to look at")
	case err != nil:
		return warning(name, "run it as root, in the host's PID namespace", "can't be compared with the host's: %v", err)
	case own != host:
		return warning(name, "in a container use the host's: `network_mode: host` in compose files, --net=host, hostNetwork: true",
			"not the host's: programs will have their sockets in this one")
	}
	return ok(name, "the host's")
}

// sockDiagWait is how long the kernel may take to tell that a socket died; it takes microseconds.
const sockDiagWait = time.Second

// sockDiag listens for the end of a socket, as the agent does, and ends one.
func sockDiag(ctx context.Context) Result {
	const name, fix = "socket events", "run as root; the kernel needs CONFIG_INET_DIAG (modprobe inet_diag tcp_diag udp_diag)"
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return warning(name, fix, "closed sockets are noticed later: %v", err)
	}
	defer unix.Close(fd)
	const destroyGroups = 0b1111 // TCP and UDP over IPv4 and IPv6: SKNLGRP_INET_TCP_DESTROY and the three after it
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: destroyGroups}); err != nil {
		return warning(name, fix, "closed sockets are noticed later: %v", err)
	}
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", "127.0.0.1:0")
	if err != nil {
		return warning(name, "bring up the loopback interface", "can't be tried: %v", err)
	}
	_ = conn.Close()
	deadline := time.Now().Add(sockDiagWait)
	for {
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil {
			return warning(name, fix, "the kernel does not tell when sockets close: they are noticed later")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 {
			return ok(name, "the kernel tells when sockets close")
		}
		if err != nil && err != unix.EINTR {
			return warning(name, fix, "closed sockets are noticed later: %v", err)
		}
	}
}
