package attach

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/internal/admission"
	"appswitch.io/services/nodeagent/internal/procfs"
	"golang.org/x/sys/unix"
)

// trusted reports whether the peer is root of the host, or the agent's own user. Root of a container has no CAP_SYS_ADMIN
// (one that has could take the host over), and who is in another user namespace is not who its user id says.
func (p peer) trusted() bool {
	if !sameUserNamespace(p.pid) {
		return false
	}
	if p.uid == 0 {
		is, err := procfs.Capable(p.pid, unix.CAP_SYS_ADMIN)
		return err == nil && is
	}
	return int(p.uid) == os.Geteuid()
}

// client gathers what the kernel says of the peer, for its claims to be judged.
func (p peer) client() (admission.Client, error) {
	c := admission.Client{UID: int(p.uid), PID: p.pid, Trusted: p.privileged}
	if c.Trusted {
		return c, nil
	}
	var err error
	if c.GIDs, err = p.groups(); err != nil {
		return c, err
	}
	file, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
	if err != nil {
		return c, fmt.Errorf("control group of process %d: %w", p.pid, err)
	}
	c.Cgroup = admission.Cgroup(string(file))
	c.Container = admission.ContainerID(c.Cgroup)
	if !p.alive() { // what was read may be another process's
		return c, fmt.Errorf("process %d: %w", p.pid, unix.ESRCH)
	}
	return c, nil
}

// maxPeerGroups bounds a peer's groups: NGROUPS_MAX.
const maxPeerGroups = 65536

// groups returns the peer's groups at the time it connected, its own first.
func (p peer) groups() ([]uint32, error) {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("groups of process %d: %w", p.pid, err)
	}
	var out []uint32
	var getErr error
	err = errors.Join(raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, getErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); getErr != nil {
			return
		}
		list := make([]uint32, 64)
		for {
			size := uint32(4 * len(list)) //nolint:gosec // bounded by maxPeerGroups
			_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
				uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
			switch {
			case errno == 0:
				out = append([]uint32{cred.Gid}, list[:size/4]...)
			case errno == unix.ERANGE && len(list) < maxPeerGroups:
				list = make([]uint32, maxPeerGroups)
				continue
			default:
				getErr = errno
			}
			return
		}
	}), getErr)
	if err != nil {
		return nil, fmt.Errorf("groups of process %d: %w", p.pid, err)
	}
	return out, nil
}

// alive reports whether the process that connected is still there, so that what /proc says of its id is about it. Before
// Linux 6.5 the kernel doesn't tell which process connected, only its id; then it counts as alive.
func (p peer) alive() bool {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = raw.Control(func(fd uintptr) {
		pidfd, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if err != nil {
			is = errors.Is(err, unix.ENOPROTOOPT)
			return
		}
		defer unix.Close(pidfd)
		err = unix.PidfdSendSignal(pidfd, 0, nil, 0)
		is = err == nil || errors.Is(err, unix.EPERM)
	})
	return err == nil && is
}

// owns reports whether a process, known by a file of its in /proc, may be spoken for by the peer: by root, or by its own
// user.
func (p peer) owns(status os.FileInfo) bool {
	st, ok := status.Sys().(*syscall.Stat_t)
	return ok && (p.privileged || st.Uid == p.uid)
}

// sameUserNamespace reports whether a uid of the process means what it means to the agent.
func sameUserNamespace(pid int) bool {
	dev, ino, err := procfs.UsernsInode(pid)
	ownDev, ownIno, ownErr := procfs.UsernsInode(os.Getpid())
	return err == nil && ownErr == nil && dev == ownDev && ino == ownIno
}
