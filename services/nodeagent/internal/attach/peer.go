package attach

import (
	"errors"
	"fmt"
	"net"

	"appswitch.io/services/nodeagent/launch/wire"
	"golang.org/x/sys/unix"
)

// peer is who speaks on a connection, as the kernel says (SO_PEERCRED).
type peer struct {
	pid        int
	uid        uint32
	privileged bool // may claim any name, address and label
	conn       *net.UnixConn
}

func peerOf(conn *net.UnixConn) (peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("identify peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := errors.Join(raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}), credErr); err != nil {
		return peer{}, fmt.Errorf("identify peer: %w", err)
	}
	if cred.Pid == 0 {
		return peer{}, errors.New("the agent runs in another process-id namespace and can't see the program: start it in the host's (pid: host)")
	}
	p := peer{pid: int(cred.Pid), uid: cred.Uid, conn: conn}
	p.privileged = p.trusted() && p.alive()
	return p, nil
}

// descriptor fetches a copy of a descriptor of the peer's, or returns -1 and why not. It takes CAP_SYS_PTRACE, because
// holders are not dumpable, and Linux 6.5.
func (p peer) descriptor(fd int) (int, error) {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("fetch descriptor %d of process %d: %w", fd, p.pid, err)
	}
	copied := -1
	var getErr error
	err = errors.Join(raw.Control(func(sock uintptr) {
		var pidfd int
		// Not by the process id, which may be another process's by now.
		if pidfd, getErr = unix.GetsockoptInt(int(sock), unix.SOL_SOCKET, unix.SO_PEERPIDFD); getErr != nil {
			return
		}
		defer unix.Close(pidfd)
		copied, getErr = unix.PidfdGetfd(pidfd, fd, 0)
	}), getErr)
	if err != nil {
		return -1, fmt.Errorf("fetch descriptor %d of process %d: %w", fd, p.pid, err)
	}
	return copied, nil
}

// receive reads one message with its descriptors. The caller closes those.
func receive(conn *net.UnixConn) (wire.Message, []int, error) {
	buf := make([]byte, wire.MaxMessage+1)
	oob := make([]byte, unix.CmsgSpace(4*wire.MaxFDs))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return wire.Message{}, nil, err
	}
	fds := descriptors(oob[:oobn])
	if n == 0 {
		return wire.Message{}, fds, net.ErrClosed
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return wire.Message{}, fds, errors.New("message is cut: too long, or too many descriptors")
	}
	m, err := wire.Unmarshal(buf[:n])
	return m, fds, err
}

func descriptors(oob []byte) []int {
	var out []int
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			out = append(out, fds...)
		}
	}
	return out
}

func send(conn *net.UnixConn, m wire.Message, fds []int) error {
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(b, oob, nil)
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
