// Package procmem reads and writes the memory of an application that waits in a system call.
//
// Invariant: what is read is copied once and bounded before it is looked at; everything in it is hostile input. The
// caller re-checks that the call still waits before it acts on the copy. Start reading at [ParseSockaddr].
package procmem

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxSockaddr is the longest socket address that the kernel takes (struct sockaddr_storage).
const MaxSockaddr = 128

// Lengths of socket addresses.
const (
	SizeInet4     = 16 // struct sockaddr_in
	SizeInet6     = 28 // struct sockaddr_in6
	MinInet6      = 24 // SIN6_LEN_RFC2133: without the scope id
	sizeFamily    = 2
	offsetPort    = 2
	offsetInet4   = 4
	offsetInet6   = 8
	offsetScopeID = 24
)

// Sockaddr is a socket address as a program gave it.
type Sockaddr struct {
	Family uint16
	Addr   netip.AddrPort // for AF_INET and AF_INET6; an IPv4-mapped address stays mapped
}

// ParseSockaddr decodes the copy of a socket address for a socket of the given domain. The errno is the one that
// the kernel's inet_stream_connect and inet6_bind families give natively.
func ParseSockaddr(b []byte) (Sockaddr, syscall.Errno) {
	if len(b) < sizeFamily {
		return Sockaddr{}, syscall.EINVAL
	}
	sa := Sockaddr{Family: binary.NativeEndian.Uint16(b)}
	switch sa.Family {
	case unix.AF_INET:
		if len(b) < SizeInet4 {
			return sa, syscall.EINVAL
		}
		sa.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[offsetInet4:offsetInet4+4])), binary.BigEndian.Uint16(b[offsetPort:]))
	case unix.AF_INET6:
		if len(b) < MinInet6 {
			return sa, syscall.EINVAL
		}
		sa.Addr = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[offsetInet6:offsetInet6+16])), binary.BigEndian.Uint16(b[offsetPort:]))
	}
	return sa, 0
}

// AppendSockaddr encodes an address for a socket of the given domain: IPv4 becomes IPv4-mapped on AF_INET6. An
// address that is not valid is written as the wildcard of the domain.
func AppendSockaddr(b []byte, domain int, a netip.AddrPort) []byte {
	if domain == unix.AF_INET6 {
		b = binary.NativeEndian.AppendUint16(b, unix.AF_INET6)
		b = binary.BigEndian.AppendUint16(b, a.Port())
		b = append(b, 0, 0, 0, 0) // flow information
		ip := netip.IPv6Unspecified()
		if a.Addr().IsValid() {
			ip = a.Addr()
		}
		b16 := ip.As16()
		b = append(b, b16[:]...)
		return append(b, 0, 0, 0, 0) // scope id
	}
	b = binary.NativeEndian.AppendUint16(b, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	ip := netip.IPv4Unspecified()
	if u := a.Addr().Unmap(); u.Is4() {
		ip = u
	}
	b4 := ip.As4()
	b = append(b, b4[:]...)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sin_zero
}
