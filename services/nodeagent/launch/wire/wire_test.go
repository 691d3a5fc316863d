package wire_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"appswitch.io/services/nodeagent/launch/wire"
)

var hello = wire.Hello{
	Version: 1, IP: "1.1.1.1", Name: "web", Labels: map[string]string{"role": "test", "zone": "a", "empty": ""},
	NewNetns: true, DNS: true, Command: []string{"curl", "", "-I", "\xff\"\x00"},
}

var messages = map[string]wire.Message{
	"hello":    {Hello: &hello},
	"empty":    {Hello: &wire.Hello{}},
	"welcome":  {Welcome: &wire.Welcome{Version: 1, AppID: "0badcafe", Token: "t", IP: "::1", AgentTimeout: 30000, ResolvConf: true, Netns: "net:[1]", Second: "10.0.0.1"}},
	"attach":   {Attach: &wire.Attach{Version: 1, AppID: "0badcafe", Token: "t", PID: 1 << 22, Holder: true, Hello: hello}},
	"negative": {Attach: &wire.Attach{PID: -1}},
	"attached": {Attached: &wire.Attached{Version: 1}},
	"error":    {Error: &wire.Error{Code: wire.CodeDenied, Message: "no"}},
}

func TestRoundTrip(t *testing.T) {
	for name, m := range messages {
		b, err := m.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := wire.Unmarshal(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, m)
		}
	}
}

// TestEncoding pins the bytes: an old holder must understand a newer agent.
func TestEncoding(t *testing.T) {
	b, err := wire.Message{Attach: &wire.Attach{Version: 1, AppID: "ab", PID: 300, Hello: wire.Hello{Labels: map[string]string{"k": "v"}}}}.Marshal()
	want := []byte{
		3<<3 | 2, 19, // attach
		1 << 3, 1, // version
		2<<3 | 2, 2, 'a', 'b', // app id
		4 << 3, 0xac, 2, // pid
		6<<3 | 2, 8, // hello
		4<<3 | 2, 6, 1<<3 | 2, 1, 'k', 2<<3 | 2, 1, 'v', // labels
	}
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("% x, %v; want % x", b, err, want)
	}
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	b := []byte{
		4<<3 | 2, 20, // attached
		99<<3&0x7f | 0x80 | 2, 6, 1, 'x', // field 99, text
		100<<3&0x7f | 0x80, 6, 7, // field 100, number
		15<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, // field 15, fixed 64
		1 << 3, 1, // version
	}
	b[1] = byte(len(b) - 2)
	m, err := wire.Unmarshal(b)
	if err != nil || m.Attached == nil || m.Attached.Version != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestRefused(t *testing.T) {
	two, err := wire.Message{Attached: &wire.Attached{}, Error: &wire.Error{}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"two kinds":     two,
		"field zero":    {0, 0},
		"cut key":       {0x80},
		"cut number":    {1<<3 | 2, 2, 1 << 3, 0x80},
		"cut text":      {1<<3 | 2, 9, 1},
		"group":         {1<<3 | 3},
		"kind mismatch": {1 << 3, 1},
		"in a field":    {1<<3 | 2, 2, 2 << 3, 1},
		"long number":   {1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"huge length":   {1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"too long":      make([]byte, wire.MaxMessage+1),
	} {
		if m, err := wire.Unmarshal(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := (wire.Message{Error: &wire.Error{Message: strings.Repeat("x", wire.MaxMessage)}}).Marshal(); err == nil {
		t.Error("a message longer than a packet was encoded")
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, m := range messages {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Unmarshal(b)
		if err != nil {
			return
		}
		again, err := m.Marshal()
		if err != nil {
			return // the same fields, written less densely, may outgrow a packet
		}
		back, err := wire.Unmarshal(again)
		if err != nil || !reflect.DeepEqual(m, back) {
			t.Errorf("%+v, %v; want %+v", back, err, m)
		}
	})
}
