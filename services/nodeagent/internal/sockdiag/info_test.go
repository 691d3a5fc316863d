package sockdiag

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// closing builds an inet_diag_msg with a protocol attribute and a tcp_info.
func closing(retrans, segsIn uint32, infoSize int) []byte {
	b := bytes.Repeat([]byte{0}, sizeDiagMsg)
	attr := func(kind uint16, data []byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(sizeNlAttr+len(data)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	attr(7, []byte{6})
	info := make([]byte, max(infoSize, offSegsIn+4))
	binary.NativeEndian.PutUint32(info[offTotalRetrans:], retrans)
	binary.NativeEndian.PutUint32(info[offSegsIn:], segsIn)
	attr(attrInfo, info[:infoSize])
	return b
}

func TestGaveUp(t *testing.T) {
	const whole = 248
	for _, c := range []struct {
		what            string
		retrans, segsIn uint32
		size            int
		want            bool
	}{
		{"repeated, and no answer", 2, 0, whole, true},
		{"closed before it was repeated", 0, 0, whole, false},
		{"answered after all", 2, 1, whole, false},
		{"an ordinary end", 0, 40, whole, false},
		{"a kernel that does not count", 2, 0, offSegsIn, false},
	} {
		b := closing(c.retrans, c.segsIn, c.size)
		if got := gaveUp(b); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
		for n := range b { // cut off anywhere
			if gaveUp(b[:n]) && n < sizeDiagMsg+8+sizeNlAttr+offSegsIn+4 {
				t.Errorf("%s, cut off after %d bytes: it says so nevertheless", c.what, n)
			}
		}
	}
}
