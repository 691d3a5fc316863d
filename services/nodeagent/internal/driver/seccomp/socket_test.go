package seccomp

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheckSocket: what is refused gets the errno that inet_create and inet6_create give.
func TestCheckSocket(t *testing.T) {
	for _, tt := range []struct {
		domain, typ, proto int
		want               syscall.Errno
	}{
		{unix.AF_INET, unix.SOCK_STREAM, 0, 0},
		{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP, 0},
		{unix.AF_INET6, unix.SOCK_STREAM, protoMPTCP, 0},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, 0},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP, syscall.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_STREAM, maxProto, syscall.EINVAL},
		{unix.AF_INET, unix.SOCK_DGRAM, -1, syscall.EINVAL},
		{unix.AF_INET, unix.SOCK_STREAM | 0x100, 0, syscall.EINVAL},
		{unix.AF_INET, maxSocktype + 1, 0, syscall.EINVAL},
		{unix.AF_INET, 0, 0, syscall.ESOCKTNOSUPPORT},
		{unix.AF_INET, unix.SOCK_SEQPACKET, 0, syscall.ESOCKTNOSUPPORT},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, syscall.EACCES},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, syscall.EPROTONOSUPPORT},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, syscall.EACCES},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, syscall.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, syscall.EPERM},
		{unix.AF_INET, unix.SOCK_RAW, 0, syscall.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_PACKET, 0, syscall.EPERM},
		{unix.AF_INET6, unix.SOCK_PACKET, 0, syscall.ESOCKTNOSUPPORT},
	} {
		if _, _, got := checkSocket(tt.domain, tt.typ, tt.proto); got != tt.want {
			t.Errorf("socket(%d, %#x, %d): %v, want %v", tt.domain, tt.typ, tt.proto, got, tt.want)
		}
	}
}
