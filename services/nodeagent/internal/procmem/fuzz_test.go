package procmem

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzWriteSockaddr writes addresses into buffers whose room the caller gives: nothing behind it is touched.
func FuzzWriteSockaddr(f *testing.F) {
	f.Add(uint32(SizeInet4), []byte{1, 2, 3, 4}, uint16(80), false)
	f.Add(uint32(3), []byte{}, uint16(0), true)
	f.Add(uint32(1<<31), []byte("0123456789abcdef"), uint16(1), true)
	f.Fuzz(func(t *testing.T, room uint32, ip []byte, port uint16, six bool) {
		domain, full := unix.AF_INET, uint32(SizeInet4)
		if six {
			domain, full = unix.AF_INET6, SizeInet6
		}
		addr, _ := netip.AddrFromSlice(ip)
		var buf [2 * MaxSockaddr]byte
		for i := range buf {
			buf[i] = 0xa5
		}
		length := new(uint32)
		*length = room
		errno := self().WriteSockaddr(address(&buf), address(length), domain, netip.AddrPortFrom(addr, port))
		written := min(room, full)
		if errno != 0 {
			written = 0
		} else if *length != full {
			t.Errorf("length %d, want %d", *length, full)
		}
		for i, b := range buf[written:] {
			if b != 0xa5 {
				t.Fatalf("room %d: byte %d is written", room, int(written)+i)
			}
		}
	})
}

// FuzzReadSockaddr reads addresses of any length: never more than there is room for.
func FuzzReadSockaddr(f *testing.F) {
	f.Add(int32(16), []byte{2, 0, 0, 80, 1, 2, 3, 4})
	f.Add(int32(-1), []byte{})
	f.Fuzz(func(t *testing.T, n int32, content []byte) {
		var memory, into [MaxSockaddr]byte
		copy(memory[:], content)
		b, errno := self().ReadSockaddr(address(&memory), n, &into)
		if errno == 0 && len(b) != int(n) {
			t.Fatalf("%d bytes of %d", len(b), n)
		}
		if errno == 0 {
			_, _ = ParseSockaddr(b)
		}
	})
}
