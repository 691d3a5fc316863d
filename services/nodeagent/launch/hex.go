package launch

// Package encoding/hex would do, but imports fmt; see package fast.

const hexDigits = "0123456789abcdef"

func toHex(b []byte) string {
	out := make([]byte, 0, 2*len(b))
	for _, v := range b {
		out = append(out, hexDigits[v>>4], hexDigits[v&15])
	}
	return string(out)
}

func fromHex(s string) ([]byte, bool) {
	out := make([]byte, len(s)/2)
	for i := range len(s) {
		var digit byte
		switch b := s[i]; {
		case b >= '0' && b <= '9':
			digit = b - '0'
		case b >= 'a' && b <= 'f':
			digit = b - 'a' + 10
		default:
			return nil, false
		}
		if i/2 < len(out) {
			out[i/2] = out[i/2]<<4 | digit
		}
	}
	return out, len(s)%2 == 0
}
