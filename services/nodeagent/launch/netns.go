package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"
)

const loopbackIndex = 1 // of lo, the first device of every network namespace

// configureNetwork brings lo up in the calling thread's new network namespace and puts the program's address on it,
// or on a device of the given name.
func configureNetwork(ip, device string) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	n := netlink{fd: fd}
	if err := n.ask(linkUp(loopbackIndex)); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	index := int32(loopbackIndex)
	if device != "" {
		if index, err = n.createDevice(device); err != nil {
			return err
		}
	} else {
		device = "lo"
	}
	if ip == "" {
		return nil
	}
	addr, ok := parseIP(ip)
	if !ok {
		return fmt.Errorf("the agent gave the address %q: not an IP address", ip)
	}
	if err := n.ask(newAddress(index, addr)); err != nil && err != syscall.EEXIST {
		return fmt.Errorf("put %s on %s: %w", ip, device, err)
	}
	return nil
}

// createDevice makes a device of a name, of the first type that this kernel has, and brings it up. Nothing is ever
// sent on it: it is there for programs that look for it.
func (n *netlink) createDevice(name string) (int32, error) {
	kinds := []string{"dummy", "bridge", "veth"}
	for _, kind := range kinds {
		err := n.ask(newLink(name, kind))
		switch err {
		case nil:
			index, err := interfaceIndex(name)
			if err != nil {
				return 0, err
			}
			if err := n.ask(linkUp(index)); err != nil {
				return 0, fmt.Errorf("bring %s up: %w", name, err)
			}
			return index, nil
		case syscall.EOPNOTSUPP: // no such type: try the next
		case syscall.EEXIST:
			return 0, fmt.Errorf("create interface %s: the new network namespace has one of that name; choose another", name)
		default:
			return 0, fmt.Errorf("create interface %s (%s): %w", name, kind, err)
		}
	}
	return 0, fmt.Errorf("create interface %s: this kernel has none of the device types %v", name, kinds)
}

// interfaceIndex asks the kernel for the number of a device in the calling thread's network namespace.
func interfaceIndex(name string) (int32, error) {
	const siocgifindex = 0x8933
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	var request struct {
		name  [16]byte
		index int32
		_     [20]byte
	}
	copy(request.name[:15], name)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), siocgifindex, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0, fmt.Errorf("find interface %s: %w", name, errno)
	}
	return request.index, nil
}

// netlink asks the kernel for changes, one at a time.
type netlink struct {
	fd  int
	seq uint32
}

// ask sends a request (type, body) and returns the kernel's verdict: nil, or an errno.
func (n *netlink) ask(r request) error {
	n.seq++
	message := make([]byte, syscall.SizeofNlMsghdr, syscall.SizeofNlMsghdr+len(r.body))
	native := binary.NativeEndian
	native.PutUint32(message, uint32(cap(message)))
	native.PutUint16(message[4:], r.kind)
	native.PutUint16(message[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|r.flags)
	native.PutUint32(message[8:], n.seq)
	message = append(message, r.body...)
	if err := syscall.Sendto(n.fd, message, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	var reply [4096]byte
	size, err := syscall.Read(n.fd, reply[:])
	if err != nil {
		return err
	}
	if size < syscall.SizeofNlMsghdr+4 || native.Uint16(reply[4:]) != syscall.NLMSG_ERROR || native.Uint32(reply[8:]) != n.seq {
		return errors.New("netlink: unexpected answer")
	}
	if errno := -int32(native.Uint32(reply[syscall.SizeofNlMsghdr:])); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// request is the body of a netlink message with its type and flags.
type request struct {
	kind  uint16
	flags uint16
	body  []byte
}

// ifinfo is struct ifinfomsg.
func ifinfo(index int32, flags, change uint32) []byte {
	b := make([]byte, syscall.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func linkUp(index int32) request {
	return request{kind: syscall.RTM_NEWLINK, body: ifinfo(index, syscall.IFF_UP, syscall.IFF_UP)}
}

func newLink(name, kind string) request {
	const iflaInfoKind = 1
	body := appendAttribute(ifinfo(0, 0, 0), syscall.IFLA_IFNAME, append([]byte(name), 0))
	body = appendAttribute(body, syscall.IFLA_LINKINFO, appendAttribute(nil, iflaInfoKind, []byte(kind)))
	return request{kind: syscall.RTM_NEWLINK, flags: syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, body: body}
}

// newAddress puts an address of 4 or 16 bytes on a device, as a network of its own.
func newAddress(index int32, addr []byte) request {
	const ifaFNoDAD = 0x02 // an IPv6 address is usable at once
	family, flags := byte(syscall.AF_INET), byte(0)
	if len(addr) == ipv6Size {
		family, flags = syscall.AF_INET6, ifaFNoDAD
	}
	// struct ifaddrmsg: family, prefix length, flags, scope, index
	body := []byte{family, byte(8 * len(addr)), flags, syscall.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	body = appendAttribute(body, syscall.IFA_LOCAL, addr)
	body = appendAttribute(body, syscall.IFA_ADDRESS, addr)
	return request{kind: syscall.RTM_NEWADDR, flags: syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, body: body}
}

// appendAttribute adds one attribute: length, type, value, padding to 4 bytes.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	const header = 4
	b = binary.NativeEndian.AppendUint16(b, uint16(header+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
