package seccomp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"appswitch.io/internal/ax"
	"appswitch.io/services/nodeagent/internal/socktab"
	"golang.org/x/sys/unix"
)

func control(level, typ uint32, data []byte) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(unix.SizeofCmsghdr+len(data)))
	b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, level), typ)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&7)...)
}

func pktinfo(index byte, specDst, addr [4]byte) []byte {
	return bytes.Join([][]byte{{index, 0, 0, 0}, specDst[:], addr[:]}, nil)
}

var (
	virtual4 = [4]byte{1, 1, 1, 1}
	real4    = [4]byte{10, 0, 0, 1}
	other4   = [4]byte{192, 0, 2, 9}
	none4    [4]byte
)

func controlTask() *task {
	return &task{
		app: App{App: ax.App{Addr: netip.AddrFrom4(virtual4)}},
		d:   &Driver{cfg: Config{NodeAddr: netip.AddrFrom4(real4)}, deps: Deps{Table: socktab.New(nil, nil)}},
	}
}

func TestShowControl(t *testing.T) {
	wildcard := socktab.Socket{Host: netip.AddrPortFrom(netip.AddrFrom4(real4), 40000), Local: netip.MustParseAddrPort("0.0.0.0:53"), Bound: netip.MustParseAddrPort("0.0.0.0:53")}
	mapped := func(b [4]byte) []byte {
		a := netip.AddrFrom16(netip.AddrFrom4(b).As16()).As16()
		return append(a[:], 1, 0, 0, 0)
	}
	for name, c := range map[string]struct {
		asked    netip.Addr
		in, want []byte
	}{
		"IPv4":           {netip.Addr{}, control(0, 8, pktinfo(7, real4, real4)), control(0, 8, pktinfo(1, virtual4, virtual4))},
		"what was asked": {netip.AddrFrom4(other4), control(0, 8, pktinfo(7, real4, real4)), control(0, 8, pktinfo(1, other4, other4))},
		"not ours":       {netip.Addr{}, control(0, 8, pktinfo(7, other4, other4)), control(0, 8, pktinfo(1, other4, other4))},
		"mapped":         {netip.Addr{}, control(41, 50, mapped(real4)), control(41, 50, mapped(virtual4))},
		"short":          {netip.Addr{}, control(0, 8, []byte{1, 2}), control(0, 8, []byte{1, 2})},
		"another":        {netip.Addr{}, control(0, 2, []byte{64, 0, 0, 0}), control(0, 2, []byte{64, 0, 0, 0})},
		"destination":    {netip.Addr{}, control(0, 20, append([]byte{2, 0, 0x9c, 0x40}, real4[:]...)), control(0, 20, append([]byte{2, 0, 0, 53}, virtual4[:]...))},
	} {
		controlTask().showControl(wildcard, c.asked, c.in)
		if !bytes.Equal(c.in, c.want) {
			t.Errorf("%s: % x, want % x", name, c.in, c.want)
		}
	}
}

func TestSendControl(t *testing.T) {
	own := func(ip netip.Addr) bool { return ip == netip.AddrFrom4(virtual4) || ip.IsUnspecified() }
	as6 := func(b [4]byte) []byte {
		a := netip.AddrFrom16(netip.AddrFrom4(b).As16()).As16()
		return append(a[:], 3, 0, 0, 0)
	}
	zero6 := append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, make([]byte, 8)...)
	for name, c := range map[string]struct {
		level, typ int32
		data, want []byte
		errno      syscall.Errno
	}{
		"from its own":         {0, 8, pktinfo(3, virtual4, none4), make([]byte, 12), 0},
		"from nowhere":         {0, 8, pktinfo(3, none4, none4), make([]byte, 12), 0},
		"from another":         {0, 8, pktinfo(0, real4, none4), nil, syscall.ENETUNREACH},
		"short":                {0, 8, []byte{1}, nil, syscall.EINVAL},
		"mapped":               {41, 50, as6(virtual4), zero6, 0},
		"mapped, from another": {41, 50, as6(real4), nil, syscall.ENETUNREACH},
		"short, IPv6":          {41, 50, []byte{1}, nil, syscall.EINVAL},
		"IP_TTL":               {0, 2, []byte{9, 0, 0, 0}, []byte{9, 0, 0, 0}, 0},
		"UDP_SEGMENT":          {17, 103, []byte{9, 0}, []byte{9, 0}, 0},
		"source route":         {0, 7, []byte{1}, nil, syscall.EPERM},
		"SO_MARK":              {1, 36, []byte{1, 0, 0, 0}, nil, syscall.EPERM},
		"routing header":       {41, 57, []byte{1}, nil, syscall.EPERM},
		"SCM_RIGHTS":           {1, 1, []byte{1, 0, 0, 0}, []byte{1, 0, 0, 0}, 0},
		"unknown":              {1, 99, nil, nil, syscall.EINVAL},
		"unknown of IP":        {0, 99, nil, nil, syscall.EINVAL},
	} {
		errno := sendControl(own, c.level, c.typ, c.data)
		if errno != c.errno || errno == 0 && !bytes.Equal(c.data, c.want) {
			t.Errorf("%s: %v % x, want %v % x", name, errno, c.data, c.errno, c.want)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add(control(0, 8, pktinfo(7, real4, real4)))
	f.Add(append(control(41, 50, make([]byte, 20)), control(17, 103, []byte{1, 0})...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 8, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		controlTask().showControl(socktab.Socket{Host: netip.AddrPortFrom(netip.AddrFrom4(real4), 1)}, netip.Addr{}, bytes.Clone(b))
		n := 0
		_ = eachControl(b, func(level, typ int32, data []byte) syscall.Errno {
			n++
			return sendControl(func(netip.Addr) bool { return true }, level, typ, data)
		})
		if n > len(b)/unix.SizeofCmsghdr {
			t.Errorf("%d elements in %d bytes", n, len(b))
		}
	})
}
