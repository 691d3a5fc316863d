package procmem

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"appswitch.io/services/nodeagent/internal/sys"
)

// Task is a thread that waits in a call: its id, valid while the notification is.
type Task int

// ReadSockaddr copies the socket address of length n (an int of the caller, hence signed) at addr.
func (t Task) ReadSockaddr(addr uint64, n int32, into *[MaxSockaddr]byte) ([]byte, syscall.Errno) {
	if n < 0 || n > MaxSockaddr {
		return nil, syscall.EINVAL
	}
	b := into[:n]
	return b, sys.ReadMemory(int(t), addr, b)
}

// ReadUint32 copies one 32-bit word.
func (t Task) ReadUint32(addr uint64) (uint32, syscall.Errno) {
	var b [4]byte
	e := sys.ReadMemory(int(t), addr, b[:])
	return binary.NativeEndian.Uint32(b[:]), e
}

// WriteUint32 stores one 32-bit word.
func (t Task) WriteUint32(addr uint64, v uint32) syscall.Errno {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return sys.WriteMemory(int(t), addr, b[:])
}

// WriteSockaddr returns an address to the caller as getsockname(2) and accept(2) do: lenAddr points to the size of
// the buffer, the address is cut to it, and its full length is stored there.
func (t Task) WriteSockaddr(addr, lenAddr uint64, domain int, a netip.AddrPort) syscall.Errno {
	room, e := t.ReadUint32(lenAddr)
	if e != 0 {
		return e
	}
	if int32(room) < 0 {
		return syscall.EINVAL
	}
	var buf [SizeInet6]byte
	sa := AppendSockaddr(buf[:0], domain, a)
	var full [4]byte
	binary.NativeEndian.PutUint32(full[:], uint32(len(sa)))
	return sys.WriteMemory2(int(t), addr, sa[:min(int(room), len(sa))], lenAddr, full[:])
}
