package launch

import (
	"errors"
	"strconv"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

const loopbackIndex = 1 // of lo, the first device of every network namespace

// configureNetwork brings lo up in the calling thread's new network namespace and puts the program's addresses on it, or on
// a device of the given name. Programs that ask for addresses of the families that the machine has (AI_ADDRCONFIG) need
// one of each family there.
func configureNetwork(ips []string, device string) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return text.Wrap(err, "open netlink")
	}
	defer func() { _ = syscall.Close(fd) }()
	n := netlink{fd: fd}
	if err := n.ask(linkUp(loopbackIndex)); err != nil {
		return text.Wrap(err, "bring lo up")
	}
	index := int32(loopbackIndex)
	if device != "" {
		if index, err = n.createDevice(device); err != nil {
			return err
		}
	} else {
		device = "lo"
	}
	for _, ip := range ips {
		if ip == "" {
			continue
		}
		addr, ok := parseIP(ip)
		if !ok {
			return text.Error("the agent gave ", strconv.Quote(ip), " as an address")
		}
		if err := n.ask(newAddress(index, addr)); err != nil && !errors.Is(err, syscall.EEXIST) {
			return refusedAddress(err, ip, device, len(addr))
		}
	}
	return nil
}

// refusedAddress says why the kernel doesn't take an address: it may be without IPv6, as a whole (EOPNOTSUPP,
// EAFNOSUPPORT) or for new devices (EACCES, as of inet6_addr_add).
func refusedAddress(err error, ip, device string, size int) error {
	for _, off := range []syscall.Errno{syscall.EOPNOTSUPP, syscall.EAFNOSUPPORT, syscall.EACCES} {
		if size == ipv6Size && errors.Is(err, off) {
			return text.Because(err, "put ", ip, " on ", device, ": ", err.Error(),
				": this machine has IPv6 switched off (ipv6.disable, ipv6.disable_ipv6): switch it on, or use an IPv4 address")
		}
	}
	return text.Wrap(err, "put ", ip, " on ", device)
}

// createDevice makes a device of a name, of the first type that this kernel has, and brings it up. Nothing is ever
// sent on it: it is there for programs that look for it.
func (n *netlink) createDevice(name string) (int32, error) {
	for _, kind := range []string{"dummy", "bridge", "veth"} {
		err := n.ask(newLink(name, kind))
		switch {
		case err == nil:
			index, err := interfaceIndex(name)
			if err != nil {
				return 0, err
			}
			if err := n.ask(linkUp(index)); err != nil {
				return 0, text.Wrap(err, "bring ", name, " up")
			}
			return index, nil
		case errors.Is(err, syscall.EOPNOTSUPP): // no such type: try the next
		case errors.Is(err, syscall.EEXIST):
			return 0, text.Error("create interface ", name, ": the new network namespace has one of that name; choose another")
		default:
			return 0, text.Wrap(err, "create interface ", name, " (", kind, ")")
		}
	}
	return 0, text.Error("create interface ", name, ": this kernel has none of the device types dummy, bridge and veth")
}

// interfaceIndex asks the kernel for the number of a device in the calling thread's network namespace.
func interfaceIndex(name string) (int32, error) {
	const siocgifindex = 0x8933
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, text.Wrap(err, "open a socket")
	}
	defer func() { _ = syscall.Close(fd) }()
	var request struct {
		name  [16]byte
		index int32
		_     [20]byte
	}
	copy(request.name[:15], name)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), siocgifindex, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0, text.Wrap(errno, "find interface ", name)
	}
	return request.index, nil
}

// netlink asks the kernel for changes, one at a time.
type netlink struct {
	fd  int
	seq uint32
}

// ask sends a request and returns the kernel's verdict: nil, or an errno.
func (n *netlink) ask(r request) error {
	n.seq++
	// struct nlmsghdr: length, type, flags, sequence number, port
	message := append32(nil, uint32(syscall.SizeofNlMsghdr+len(r.body)))
	message = append16(message, r.kind)
	message = append16(message, syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|r.flags)
	message = append32(message, n.seq)
	message = append32(message, 0)
	message = append(message, r.body...)
	if err := syscall.Sendto(n.fd, message, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	var reply struct {
		header  syscall.NlMsghdr
		verdict int32
		_       [4096]byte
	}
	b := (*[unsafe.Sizeof(reply)]byte)(unsafe.Pointer(&reply))
	size, err := syscall.Read(n.fd, b[:])
	if err != nil {
		return err
	}
	if size < syscall.SizeofNlMsghdr+4 || reply.header.Type != syscall.NLMSG_ERROR || reply.header.Seq != n.seq {
		return text.Error("netlink: unexpected answer")
	}
	if reply.verdict != 0 {
		return syscall.Errno(-reply.verdict)
	}
	return nil
}

// request is the body of a netlink message with its type and flags.
type request struct {
	kind  uint16
	flags uint16
	body  []byte
}

// ifinfo is struct ifinfomsg: family and type, index, flags, which flags to change.
func ifinfo(index int32, flags, change uint32) []byte {
	return append32(append32(append32(append32(nil, 0), uint32(index)), flags), change)
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
	body := []byte{family, byte(8 * len(addr)), flags, syscall.RT_SCOPE_UNIVERSE}
	body = append32(body, uint32(index))
	body = appendAttribute(body, syscall.IFA_LOCAL, addr)
	body = appendAttribute(body, syscall.IFA_ADDRESS, addr)
	return request{kind: syscall.RTM_NEWADDR, flags: syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, body: body}
}

// appendAttribute adds one attribute: length, type, value, padding to 4 bytes.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	const header = 4
	b = append16(b, uint16(header+len(value)))
	b = append16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// append16 and append32 write native numbers; both architectures are little-endian.
func append16(b []byte, v uint16) []byte { return append(b, byte(v), byte(v>>8)) }
func append32(b []byte, v uint32) []byte { return append16(append16(b, uint16(v)), uint16(v>>16)) }
