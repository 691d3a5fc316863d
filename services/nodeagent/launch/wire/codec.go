package wire

import (
	"errors"
	"slices"
	"strconv"
)

// The encoding is that of protocol buffers, written by hand because every general codec, encoding/json included,
// depends on packages that are initialised late, and would cost `ax run` a millisecond or two. Each message lists its
// fields once, in a method that serves both directions; unknown fields are skipped, absent ones keep their zero.

// The two wire types in use; a decoder skips the two fixed-size ones as well.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeFixed32 = 5
)

var errMalformed = errors.New("decode message: malformed packet")

// record is one field as it stands in a packet.
type record struct {
	number int
	kind   uint64
	value  uint64 // of a varint
	bytes  []byte
}

// codec carries fields between a message and bytes.
type codec struct {
	encode  bool
	out     []byte
	records []record
	failed  bool
}

// message is what has fields.
type message interface{ fields(c *codec) }

func encode(m message) []byte {
	c := codec{encode: true}
	m.fields(&c)
	return c.out
}

func decode(b []byte, m message) error {
	records, ok := split(b)
	if !ok {
		return errMalformed
	}
	c := codec{records: records}
	m.fields(&c)
	if c.failed {
		return errMalformed
	}
	return nil
}

// split takes a packet apart.
func split(b []byte) (records []record, ok bool) {
	for len(b) > 0 {
		key, n := varint(b)
		if n == 0 || key>>3 == 0 || key>>3 > 1<<29-1 {
			return nil, false
		}
		b = b[n:]
		r := record{number: int(key >> 3), kind: key & 7}
		var size int
		switch r.kind {
		case typeVarint:
			if r.value, size = varint(b); size == 0 {
				return nil, false
			}
		case typeFixed64:
			size = 8
		case typeFixed32:
			size = 4
		case typeBytes:
			length, n := varint(b)
			if n == 0 || length > uint64(len(b)-n) {
				return nil, false
			}
			size = n + int(length)
			r.bytes = b[n:size]
		default:
			return nil, false
		}
		if size > len(b) {
			return nil, false
		}
		b = b[size:]
		records = append(records, r)
	}
	return records, true
}

// varint reads an unsigned number and its size in bytes, 0 if it is malformed.
func varint(b []byte) (uint64, int) {
	var v uint64
	for i := 0; i < len(b) && i < 10; i++ {
		if i == 9 && b[i] > 1 {
			return 0, 0
		}
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

func appendVarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

func (c *codec) putBytes(number int, b []byte) {
	c.out = appendVarint(c.out, uint64(number)<<3|typeBytes)
	c.out = appendVarint(c.out, uint64(len(b)))
	c.out = append(c.out, b...)
}

// each visits the records of a field, all of which must be of one kind.
func (c *codec) each(number int, kind uint64, visit func(record)) {
	for _, r := range c.records {
		if r.number != number {
			continue
		}
		if r.kind != kind {
			c.failed = true
			return
		}
		visit(r)
	}
}

func (c *codec) number(number int, v *int) {
	if !c.encode {
		c.each(number, typeVarint, func(r record) { *v = int(int64(r.value)) })
		return
	}
	if *v != 0 {
		c.out = appendVarint(appendVarint(c.out, uint64(number)<<3|typeVarint), uint64(int64(*v)))
	}
}

func (c *codec) truth(number int, v *bool) {
	i := 0
	if *v {
		i = 1
	}
	c.number(number, &i)
	*v = i != 0
}

func (c *codec) text(number int, v *string) {
	if !c.encode {
		c.each(number, typeBytes, func(r record) { *v = string(r.bytes) })
		return
	}
	if *v != "" {
		c.putBytes(number, []byte(*v))
	}
}

func (c *codec) texts(number int, v *[]string) {
	if !c.encode {
		c.each(number, typeBytes, func(r record) { *v = append(*v, string(r.bytes)) })
		return
	}
	for _, s := range *v {
		c.putBytes(number, []byte(s))
	}
}

// pair is an entry of a map.
type pair struct{ key, value string }

func (p *pair) fields(c *codec) {
	c.text(1, &p.key)
	c.text(2, &p.value)
}

func (c *codec) pairs(number int, v *map[string]string) {
	if !c.encode {
		c.each(number, typeBytes, func(r record) {
			var p pair
			c.failed = c.failed || decode(r.bytes, &p) != nil
			if *v == nil {
				*v = make(map[string]string)
			}
			(*v)[p.key] = p.value
		})
		return
	}
	keys := make([]string, 0, len(*v))
	for k := range *v {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		c.putBytes(number, encode(&pair{k, (*v)[k]}))
	}
}

// nested is a message within the message.
func (c *codec) nested(number int, v message) {
	if !c.encode {
		c.each(number, typeBytes, func(r record) { c.failed = c.failed || decode(r.bytes, v) != nil })
		return
	}
	c.putBytes(number, encode(v))
}

// optional is a nested message that may be absent.
func optional[T any, P interface {
	*T
	message
}](c *codec, number int, v *P) {
	if c.encode {
		if *v != nil {
			c.nested(number, *v)
		}
		return
	}
	c.each(number, typeBytes, func(r record) {
		*v = new(T)
		c.failed = c.failed || decode(r.bytes, *v) != nil
	})
}

func tooLong(size int) error {
	return errors.New("message of " + strconv.Itoa(size) + " bytes: at most " + strconv.Itoa(MaxMessage))
}
