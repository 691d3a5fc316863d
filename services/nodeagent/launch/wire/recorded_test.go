package wire_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"appswitch.io/services/nodeagent/launch/wire"
)

// recorded are the packets in testdata/v1, as the first version of the launcher and the holder sent them. The files are
// never changed: programs that were started then are still held.
var recorded = map[string]wire.Message{
	"hello": {Hello: &wire.Hello{
		Version: 1, IP: "1.1.1.1", Name: "web", Labels: map[string]string{"role": "prod", "zone": "a"}, NewNetns: true, DNS: true,
		Command: []string{"nginx", "-g", "daemon off;"}, Health: []string{"check=http:/healthz", "interval=5s"},
	}},
	"attach": {Attach: &wire.Attach{
		Version: 1, AppID: "0badcafe", Token: "00112233445566778899aabbccddeeff", PID: 4711, Holder: true, Ring: 7,
		Hello: wire.Hello{Version: 1, IP: "1.1.1.1", NewNetns: true, DNS: true, Command: []string{"nginx"}},
	}},
}

// TestRecorded: an agent understands every older launcher and holder.
func TestRecorded(t *testing.T) {
	for name, want := range recorded {
		text, err := os.ReadFile(filepath.Join("testdata", "v1", name+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		packet, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := wire.Unmarshal(packet); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
		if want.Hello != nil && want.Hello.Version > wire.Version || want.Attach != nil && want.Attach.Version > wire.Version {
			t.Errorf("%s: version %+v is newer than %d", name, want, wire.Version)
		}
	}
}
