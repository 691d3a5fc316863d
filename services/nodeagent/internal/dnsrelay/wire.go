package dnsrelay

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Sizes of messages.
const (
	maxQuerySize  = 4096 // of a query; the resolver takes no longer ones
	headerSize    = 12
	maxNameSize   = 255
	minClientSize = 512 // what every client takes
)

// What the relay reads of messages (RFC 1035, section 4; RFC 6891).
const (
	flagQR       = 1 << 15
	flagsOpcode  = 0xF << 11
	flagAA       = 1 << 10
	flagTC       = 1 << 9
	flagRD       = 1 << 8
	flagRA       = 1 << 7
	flagAD       = 1 << 5
	flagCD       = 1 << 4
	flagsRcode   = 0xF
	ednsDO       = 1 << 15
	typeOPT      = 41
	labelPointer = 0xC0
	maxLabel     = 63

	rcodeSuccess  = 0
	rcodeServFail = 2
	rcodeNXDomain = 3
)

// key is what an answer depends on.
type key struct {
	question string // name in lower case, type and class, as on the wire
	flags    uint16 // those of RD and CD that are set
	edns, do bool
}

// query is a message that asks one question.
type query struct {
	data     []byte
	question []byte // part of data
	key      key
	size     int  // of the longest answer that the client takes
	ordinary bool // an opcode and records that the cache understands
}

func flags(b []byte) uint16           { return binary.BigEndian.Uint16(b[2:]) }
func rcode(b []byte) uint16           { return flags(b) & flagsRcode }
func count(b []byte, section int) int { return int(binary.BigEndian.Uint16(b[4+2*section:])) }

// parse reads a packet from a client; nil if it is no query. It keeps a copy.
func parse(packet []byte) *query {
	if len(packet) < headerSize || len(packet) > maxQuerySize || flags(packet)&flagQR != 0 || count(packet, 0) != 1 {
		return nil
	}
	end := questionEnd(packet)
	if end == 0 {
		return nil
	}
	q := &query{data: bytes.Clone(packet), size: minClientSize}
	q.question = q.data[headerSize:end:end]
	q.key = key{question: string(lower(q.question)), flags: flags(packet) & (flagRD | flagCD)}
	whole := walk(q.data, end, func(rtype uint16, fixed []byte) {
		if rtype == typeOPT {
			q.key.edns = true
			q.key.do = binary.BigEndian.Uint16(fixed[6:])&ednsDO != 0
			q.size = max(minClientSize, int(binary.BigEndian.Uint16(fixed[2:])))
		}
	})
	q.ordinary = whole && flags(packet)&flagsOpcode == 0
	return q
}

// answeredBy reports whether a packet is the answer to the query.
func (q *query) answeredBy(b []byte) bool {
	if len(b) < headerSize || b[0] != q.data[0] || b[1] != q.data[1] {
		return false
	}
	if flags(b)&flagQR == 0 || flags(b)&flagsOpcode != flags(q.data)&flagsOpcode {
		return false
	}
	if count(b, 0) == 0 { // servers that fail may leave the question out
		return rcode(b) != rcodeSuccess && rcode(b) != rcodeNXDomain
	}
	end := questionEnd(b)
	return count(b, 0) == 1 && end != 0 && sameQuestion(b[headerSize:end], q.question)
}

// servfail makes the answer of last resort.
func (q *query) servfail() []byte {
	b := make([]byte, headerSize, headerSize+len(q.question)+11)
	copy(b, q.data[:2])
	f := flags(q.data)
	binary.BigEndian.PutUint16(b[2:], flagQR|f&(flagsOpcode|flagRD|flagCD)|flagRA|rcodeServFail)
	b[5] = 1
	b = append(b, q.question...)
	if q.key.edns {
		b[11] = 1
		b = append(b, 0, 0, typeOPT, 4096>>8, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}

// questionEnd returns the offset behind the question of a message that has one; 0 if that is malformed.
func questionEnd(b []byte) int {
	i := headerSize
	for i < len(b) && b[i] != 0 {
		if b[i] > maxLabel { // nothing to point to yet
			return 0
		}
		i += 1 + int(b[i])
	}
	i++
	if i-headerSize > maxNameSize || i+4 > len(b) {
		return 0
	}
	return i + 4
}

// walk visits the records behind the question. It hands over the ten bytes between a record's name and its data: type,
// class, TTL and length. It reports whether the message is whole, without anything behind it.
func walk(b []byte, from int, visit func(rtype uint16, fixed []byte)) bool {
	i := from
	for range count(b, 1) + count(b, 2) + count(b, 3) {
		for i < len(b) && b[i] != 0 && b[i] < labelPointer {
			if b[i] > maxLabel {
				return false
			}
			i += 1 + int(b[i])
		}
		if i >= len(b) {
			return false
		}
		if b[i] >= labelPointer {
			i++
		}
		i++
		if i+10 > len(b) {
			return false
		}
		fixed := b[i : i+10 : i+10]
		if i += 10 + int(binary.BigEndian.Uint16(fixed[8:])); i > len(b) {
			return false
		}
		visit(binary.BigEndian.Uint16(fixed), fixed)
	}
	return i == len(b)
}

// lower returns the question in lower case. Type and class must not be touched; the lengths of labels are below letters.
func lower(question []byte) []byte {
	out := slices.Clone(question)
	for i, c := range out[:len(out)-4] {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

func sameQuestion(a, b []byte) bool { return len(a) == len(b) && bytes.Equal(lower(a), lower(b)) }
