package procmem

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSockaddrRoundTrip(t *testing.T) {
	tests := []struct {
		domain   int
		in, want string
	}{
		{unix.AF_INET, "1.2.3.4:80", "1.2.3.4:80"},
		{unix.AF_INET6, "1.2.3.4:80", "[::ffff:1.2.3.4]:80"},
		{unix.AF_INET6, "[2001:db8::1]:65535", "[2001:db8::1]:65535"},
		{unix.AF_INET, "[::]:7", "0.0.0.0:7"},
	}
	for _, tt := range tests {
		b := AppendSockaddr(nil, tt.domain, netip.MustParseAddrPort(tt.in))
		sa, errno := ParseSockaddr(b)
		if errno != 0 || int(sa.Family) != tt.domain || sa.Addr.String() != tt.want {
			t.Errorf("%s on domain %d: %v %v, want %s", tt.in, tt.domain, sa, errno, tt.want)
		}
	}
}

func TestParseSockaddrRefusesWhatTheKernelRefuses(t *testing.T) {
	inet := AppendSockaddr(nil, unix.AF_INET, netip.MustParseAddrPort("1.2.3.4:80"))
	inet6 := AppendSockaddr(nil, unix.AF_INET6, netip.MustParseAddrPort("[::1]:80"))
	for name, b := range map[string][]byte{"empty": {}, "one byte": {2}, "short IPv4": inet[:15], "short IPv6": inet6[:23]} {
		if _, errno := ParseSockaddr(b); errno != syscall.EINVAL {
			t.Errorf("%s: %v, want EINVAL", name, errno)
		}
	}
	if _, errno := ParseSockaddr(inet6[:24]); errno != 0 {
		t.Errorf("IPv6 without scope id: %v, want success", errno)
	}
}

// self stands for a thread in a call: the test's own memory is the caller's.
func self() Task { return Task(os.Getpid()) }

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

func TestWriteSockaddrCutsAndReportsTheLength(t *testing.T) {
	addr := netip.MustParseAddrPort("1.2.3.4:80")
	whole := AppendSockaddr(nil, unix.AF_INET, addr)
	for _, room := range []uint32{0, 1, 7, SizeInet4, 100} {
		buf, length := new([128]byte), new(uint32)
		*length = room
		if errno := self().WriteSockaddr(address(buf), address(length), unix.AF_INET, addr); errno != 0 {
			t.Fatalf("room %d: %v", room, errno)
		}
		if *length != SizeInet4 {
			t.Errorf("room %d: length %d, want %d", room, *length, SizeInet4)
		}
		for i, b := range buf {
			want := byte(0)
			if i < int(min(room, SizeInet4)) {
				want = whole[i]
			}
			if b != want {
				t.Errorf("room %d: byte %d is %d, want %d", room, i, b, want)
			}
		}
	}
}

func TestWriteSockaddrErrors(t *testing.T) {
	addr := netip.MustParseAddrPort("1.2.3.4:80")
	length := new(uint32)
	*length = 1 << 31
	if errno := self().WriteSockaddr(address(new([128]byte)), address(length), unix.AF_INET, addr); errno != syscall.EINVAL {
		t.Errorf("negative length: %v, want EINVAL", errno)
	}
	*length = SizeInet4
	if errno := self().WriteSockaddr(0, address(length), unix.AF_INET, addr); errno != syscall.EFAULT {
		t.Errorf("no buffer: %v, want EFAULT", errno)
	}
	if errno := self().WriteSockaddr(address(new([128]byte)), 0, unix.AF_INET, addr); errno != syscall.EFAULT {
		t.Errorf("no length: %v, want EFAULT", errno)
	}
}

func TestReadSockaddrBounds(t *testing.T) {
	var into [MaxSockaddr]byte
	for _, n := range []int32{-1, MaxSockaddr + 1, 1 << 30} {
		if _, errno := self().ReadSockaddr(address(&into), n, &into); errno != syscall.EINVAL {
			t.Errorf("length %d: %v, want EINVAL", n, errno)
		}
	}
	if _, errno := self().ReadSockaddr(0, 16, &into); errno != syscall.EFAULT {
		t.Errorf("null pointer: %v, want EFAULT", errno)
	}
}

func FuzzParseSockaddr(f *testing.F) {
	f.Add(AppendSockaddr(nil, unix.AF_INET, netip.MustParseAddrPort("1.2.3.4:80")))
	f.Add(AppendSockaddr(nil, unix.AF_INET6, netip.MustParseAddrPort("[::1]:80")))
	f.Fuzz(func(t *testing.T, b []byte) {
		sa, errno := ParseSockaddr(b)
		if errno == 0 && (sa.Family == unix.AF_INET || sa.Family == unix.AF_INET6) && !sa.Addr.IsValid() {
			t.Fatalf("no address from %x", b)
		}
	})
}
