package sockdiag

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	attrInfo   = 2      // INET_DIAG_INFO: struct tcp_info
	attrMask   = 0x3fff // NLA_TYPE_MASK
	sizeNlAttr = unix.SizeofNlAttr

	offTotalRetrans = int(unsafe.Offsetof(unix.TCPInfo{}.Total_retrans))
	offSegsIn       = int(unsafe.Offsetof(unix.TCPInfo{}.Segs_in))
)

// gaveUp reports whether a message, a struct inet_diag_msg with its attributes, tells of a TCP socket that has sent its SYN
// at least twice and has received nothing. What is missing or malformed says nothing.
func gaveUp(body []byte) bool {
	for b := body[min(sizeDiagMsg, len(body)):]; len(b) >= sizeNlAttr; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < sizeNlAttr || length > len(b) {
			return false
		}
		if info := b[sizeNlAttr:length]; binary.NativeEndian.Uint16(b[2:])&attrMask == attrInfo {
			return len(info) >= offSegsIn+4 &&
				binary.NativeEndian.Uint32(info[offTotalRetrans:]) > 0 && binary.NativeEndian.Uint32(info[offSegsIn:]) == 0
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return false
}
