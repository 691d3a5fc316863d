package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"appswitch.io/internal/ax"
	"golang.org/x/sys/unix"
)

// netlink puts a header before a body, and pads it.
func netlink(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(sizeNlHeader+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, make([]byte, sizeNlHeader-len(b))...)
	b = append(b, body...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// message is a struct inet_diag_msg.
func message(family byte, state State, cookie uint64) []byte {
	b := make([]byte, sizeDiagMsg)
	b[offFamily], b[offState] = family, byte(state)
	binary.BigEndian.PutUint16(b[offSrcPort:], 80)
	binary.BigEndian.PutUint16(b[offDstPort:], 40000)
	copy(b[offSrc:], []byte{10, 0, 0, 1})
	copy(b[offDst:], []byte{10, 0, 0, 2})
	binary.NativeEndian.PutUint32(b[offCookie:], uint32(cookie))
	binary.NativeEndian.PutUint32(b[offCookie+4:], uint32(cookie>>32))
	binary.NativeEndian.PutUint32(b[offUID:], 1000)
	binary.NativeEndian.PutUint32(b[offInode:], 12345)
	return b
}

func TestParseDump(t *testing.T) {
	one := netlink(unix.SOCK_DIAG_BY_FAMILY, message(unix.AF_INET, Listen, 1<<40|7))
	two := netlink(unix.SOCK_DIAG_BY_FAMILY, append(message(unix.AF_INET, Established, 8), 1, 2, 3)) // attributes follow
	six := netlink(unix.SOCK_DIAG_BY_FAMILY, message(unix.AF_INET6, Listen, 9))
	end := netlink(unix.NLMSG_DONE, make([]byte, 4))
	failed := netlink(unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff))) // -EPERM
	for _, c := range []struct {
		name    string
		b       []byte
		cookies []uint64
		done    bool
		err     error
	}{
		{"nothing", nil, nil, false, nil},
		{"one", one, []uint64{1<<40 | 7}, false, nil},
		{"several", slices.Concat(one, two, six), []uint64{1<<40 | 7, 8, 9}, false, nil},
		{"the end", slices.Concat(two, end, one), []uint64{8}, true, nil},
		{"an error", slices.Concat(one, failed), []uint64{1<<40 | 7}, false, syscall.EPERM},
		{"an acknowledgement", netlink(unix.NLMSG_ERROR, make([]byte, 4)), nil, false, nil},
		{"a short error", netlink(unix.NLMSG_ERROR, nil), nil, false, errMalformed},
		{"something else", slices.Concat(netlink(99, nil), two), []uint64{8}, false, nil},
		{"a short header", one[:sizeNlHeader-1], nil, false, errMalformed},
		{"a short message", netlink(unix.SOCK_DIAG_BY_FAMILY, make([]byte, sizeDiagMsg-1)), nil, false, errMalformed},
		{"a length below the header's", append(binary.NativeEndian.AppendUint32(nil, 15), make([]byte, 12)...), nil, false, errMalformed},
		{"another family", netlink(unix.SOCK_DIAG_BY_FAMILY, message(unix.AF_UNIX, Listen, 1)), nil, false, errMalformed},
	} {
		var got []uint64
		done, err := parseDump(c.b, ax.TCP, func(s Sock) { got = append(got, s.Cookie) })
		if !slices.Equal(got, c.cookies) || done != c.done || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, %v, %v; want %v, %v, %v", c.name, got, done, err, c.cookies, c.done, c.err)
		}
	}
}

func TestSockOf(t *testing.T) {
	got, err := sockOf(message(unix.AF_INET, Listen, 1<<40|7), ax.UDP)
	want := Sock{
		Cookie: 1<<40 | 7, Family: unix.AF_INET, Proto: ax.UDP, State: Listen, Inode: 12345, UID: 1000,
		Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("10.0.0.2:40000"),
	}
	if got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	got, err = sockOf(message(unix.AF_INET6, Listen, 1), ax.TCP)
	if want := netip.MustParseAddrPort("[a00:1::]:80"); got.Local != want || err != nil {
		t.Errorf("%s, %v; want %s", got.Local, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(slices.Concat(netlink(unix.SOCK_DIAG_BY_FAMILY, message(unix.AF_INET, Listen, 7)), netlink(unix.NLMSG_DONE, nil)))
	f.Add(netlink(unix.SOCK_DIAG_BY_FAMILY, message(unix.AF_INET6, TimeWait, 7))[:40])
	f.Add(netlink(unix.NLMSG_ERROR, []byte{1, 2, 3, 4}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		most := len(b)/sizeNlHeader + 1
		if got := appendCookies(nil, b, func(uint64) {}); len(got) > most {
			t.Errorf("%d cookies in %d bytes", len(got), len(b))
		}
		n := 0
		_, err := parseDump(b, ax.TCP, func(s Sock) {
			n++
			if !s.Local.IsValid() || !s.Remote.IsValid() || s.Local.Addr().Is4In6() || s.Remote.Addr().Is4In6() {
				t.Errorf("addresses of %+v", s)
			}
		})
		if n > most {
			t.Errorf("%d sockets in %d bytes, %v", n, len(b), err)
		}
	})
}
