package manifest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"appswitch.io/internal/ax"
)

// didYouMean stands for the command line's: the known word that begins alike.
func didYouMean(word string, known []string) string {
	for _, k := range known {
		if len(word) >= 3 && strings.HasPrefix(strings.ToLower(k), strings.ToLower(word[:3])) {
			return ": did you mean " + k + "?"
		}
	}
	return ""
}

func parse(text string) ([]Object, error) {
	return Parse("f.yaml", strings.NewReader(text), didYouMean)
}

func TestParse(t *testing.T) {
	objects, err := parse(`
# a comment
kind: VirtualService
name: web
ip: "::ffff:1.1.1.1"
balancer: leastconn
backends: [1.1.1.1=3, "192.0.2.7:8080", "[2001:db8::1]:*"]
weights: {"192.0.2.7:8080": 2}
ports: [20:30, 443, {virtualPort: 53, backendPort: 5353}]
sessionAffinity: 10m
sourceIp: 10.0.2.15
---
---
kind: Policy
name: 123
action: POLICY_ACTION_DENY
from: &test {role: test, count: 7}
to: *test
ports: 5432
---
kind: Policy
name: full
action: deny
from: tier!=front, role in (test, dev)
to: {role: prod}
toSelector: zone
toCidrs: ["::/0", 10.0.0.0/8]
exceptCidrs: 10.1.0.0/16
ports: [8000-8100, 443]
portRanges: [{first: 9000, last: 9001}]
protocol: PROTOCOL_TCP
audit: true
---
kind: VirtualService
name: plain
ip:
backends: 2.2.2.2
balancer: BALANCER_TYPE_UNSPECIFIED
ports: []
sessionAffinity: null
sourceIp: ""
weights: {}
...
`)
	if err != nil {
		t.Fatal(err)
	}
	labels := ax.Labels{"role": "test", "count": "7"}
	want := []any{
		ax.VirtualService{
			Name: "web", Addr: netip.MustParseAddr("1.1.1.1"), Balancer: ax.LeastConn, Affinity: 10 * time.Minute, Source: netip.MustParseAddr("10.0.2.15"),
			Ports: []ax.PortMapping{{Virtual: 20, Backend: 30}, {Virtual: 443, Backend: 443}, {Virtual: 53, Backend: 5353}},
			Backends: []ax.Backend{
				{Addr: netip.MustParseAddr("1.1.1.1"), Weight: 3}, {Addr: netip.MustParseAddr("192.0.2.7"), Port: 8080, Weight: 2},
				{Addr: netip.MustParseAddr("2001:db8::1"), External: true, Weight: 1},
			},
		},
		ax.Policy{Name: "123", Action: ax.PolicyDeny, From: labels.Selector(), To: labels.Selector(), Ports: []ax.PortRange{{First: 5432, Last: 5432}}},
		ax.Policy{
			Name: "full", Action: ax.PolicyDeny, Audit: true, Proto: ax.TCP,
			From:  ax.Selector{{Key: "role", Op: ax.SelectIn, Values: []string{"dev", "test"}}, {Key: "tier", Op: ax.SelectNotIn, Values: []string{"front"}}},
			To:    ax.Selector{{Key: "role", Op: ax.SelectIn, Values: []string{"prod"}}, {Key: "zone", Op: ax.SelectExists}},
			CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}, Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			Ports: []ax.PortRange{{First: 443, Last: 443}, {First: 8000, Last: 8100}, {First: 9000, Last: 9001}},
		},
		ax.VirtualService{Name: "plain", Balancer: ax.Random, Backends: []ax.Backend{{Addr: netip.MustParseAddr("2.2.2.2"), Weight: 1}}},
	}
	for i, o := range objects {
		if !reflect.DeepEqual(o.Value, want[i]) {
			t.Errorf("%s: %+v\nwant %+v", o.Short(), o.Value, want[i])
		}
	}
	if len(objects) != len(want) || objects[1].Where != "f.yaml: document 3, line 14" || objects[1].Short() != "policy/123" {
		t.Errorf("objects %+v", objects)
	}
}

// TestParseRefuses: whatever is wrong, one line names file, document, line, field, and what to write instead.
func TestParseRefuses(t *testing.T) {
	const vs, pol = "kind: VirtualService\nname: v\n", "kind: Policy\nname: p\naction: deny\n"
	for _, c := range [][2]string{
		{"", "f.yaml: nothing to apply: it has no document with a kind"},
		{"---\n# nothing\n---\n", "f.yaml: nothing to apply"},
		{"text", `f.yaml: document 1, line 1: want fields, such as 'name: value', not "text"`},
		{"- a\n- b", "f.yaml: document 1, line 1: want fields, such as 'name: value', not a list"},
		{"kind: VirtualService\n\tname: v", "f.yaml: document 1: line 2: found a tab character that violates indentation; indent with blanks, not tabs"},
		{"kind: VirtualService\nname: a: b", "f.yaml: document 1: line 2: mapping values are not allowed in this context; indent"},
		{vs + "---\nkind: [", "f.yaml: document 2: line"},
		{"kind: *x", "f.yaml: document 1: unknown anchor 'x' referenced; it is not YAML"},
		{"name: v", "f.yaml: document 1, line 1: kind: missing: want VirtualService or Policy"},
		{"kind: virtualservice\nname: v", `f.yaml: document 1, line 1: kind: "virtualservice" is not known: did you mean VirtualService?`},
		{"kind: Service\nname: v", `f.yaml: document 1, line 1: kind: "Service" is not known: want VirtualService or Policy`},
		{"kind: {a: b}", "f.yaml: document 1, line 1: kind: want one value, not fields"},
		{vs + "backend: [1.1.1.1]", `f.yaml: document 1, line 3: unknown field "backend" of VirtualService: did you mean backends?`},
		{vs + "x: 1", `f.yaml: document 1, line 3: unknown field "x" of VirtualService: it has kind, name, ip, balancer`},
		{vs + "metadata: {name: v}", `f.yaml: document 1, line 3: unknown field "metadata" of VirtualService: it has`},
		{vs + "name: w", "f.yaml: document 1, line 3: name: given twice"},
		{vs + "[a]: b", "f.yaml: document 1, line 3: want the name of a field, not a list"},
		{"kind: VirtualService", "f.yaml: document 1, line 1: name: missing"},
		{`kind: VirtualService
name: "a\nb"`, `f.yaml: document 1, line 2: name: "a\nb": want letters, digits`},
		{"kind: VirtualService\nname: ..", `f.yaml: document 1, line 2: name: "..": want letters, digits`},
		{"kind: VirtualService\nname: [v]", "f.yaml: document 1, line 2: name: want one value, not a list"},
		{vs + "ip: web", `f.yaml: document 1, line 3: ip: "web" is not an IP address`},
		{vs + "ip: fe80::1%eth0", `ip: "fe80::1%eth0" is not an IP address`},
		{vs + "sourceIp: 1.1.1", `f.yaml: document 1, line 3: sourceIp: "1.1.1" is not an IP address`},
		{vs + "balancer: Rand", `f.yaml: document 1, line 3: balancer: "Rand" is not a balancer: want Random, RoundRobin, LeastConn or Maglev: did you mean Random?`},
		{vs + "backends: {a: b}", "f.yaml: document 1, line 3: backends: want a list, not fields"},
		{vs + "backends:\n- 1.1.1.1\n- web", `f.yaml: document 1, line 5: backends[1]: "web": want the address of a service`},
		{vs + "backends: [1.1.1.1=0]", `backends[0]: "1.1.1.1=0": want a weight from 1 to 1000`},
		{vs + "backends: [[1.1.1.1]]", "backends[0]: want one value, not a list"},
		{vs + "backends: [1.1.1.1, 1.1.1.1]", "f.yaml: document 1, line 3: backends: 1.1.1.1 is given twice"},
		{vs + "backends: ['1.1.1.1:*']", "f.yaml: document 1, line 3: backends: 1.1.1.1:* needs ports"},
		{vs + "backends: [1.1.1.1]\nweights: {1.1.1.2: 1}", `f.yaml: document 1, line 4: weights: "1.1.1.2" is not one of the backends`},
		{vs + "backends: [1.1.1.1]\nweights: {1.1.1.1: heavy}", `f.yaml: document 1, line 4: weights.1.1.1.1: "heavy": want a number from 1 to 1000`},
		{vs + "backends: [1.1.1.1]\nweights: {1.1.1.1: [1]}", "weights.1.1.1.1: a list: want a number"},
		{vs + "weights: 3", `weights: want fields, such as 'name: value', not "3"`},
		{vs + "ports: [80:x]", `f.yaml: document 1, line 3: ports[0]: "80:x": want vport:port, such as 80:8000`},
		{vs + "ports: [{virtual: 80}]", `f.yaml: document 1, line 3: unknown field "virtual" of ports: did you mean virtualPort?`},
		{vs + "ports: [{virtualPort: 80}]", `ports[0]: "80:": want vport:port`},
		{vs + "ports: [{virtualPort: [80], backendPort: 1}]", "ports[0]: want numbers for virtualPort and backendPort"},
		{vs + "ports: [80, 80]", "f.yaml: document 1, line 3: ports: 80:80 is given twice"},
		{vs + "sessionAffinity: soon", `f.yaml: document 1, line 3: sessionAffinity: "soon" is not a span of time: want a number with a unit`},
		{vs + "sessionAffinity: 10", `sessionAffinity: "10" is not a span of time`},
		{vs + "sessionAffinity: 1ms", "f.yaml: document 1, line 3: sessionAffinity: 1ms: want 1s to 24h0m0s"},
		{"kind: Policy\naction: deny", "f.yaml: document 1, line 1: name: missing"},
		{"kind: Policy\nname: p", `f.yaml: document 1, line 1: action: "": want allow or deny`},
		{"kind: Policy\nname: p\naction: drop", `f.yaml: document 1, line 3: action: "drop": want allow or deny`},
		{pol + "form: {a: b}", `f.yaml: document 1, line 4: unknown field "form" of Policy: it has kind, name, action, from, to, toCidrs, exceptCidrs, ports, protocol, audit`},
		{pol + "from: a=", `f.yaml: document 1, line 4: from: selector "a=": want k=v, k!=v`},
		{pol + "from: [a]", "from: want one value, not a list"},
		{pol + "from: {a: b}\nfromSelector: a=c", `f.yaml: document 1, line 4: from: label "a" can't be "b" and "c"`},
		{pol + "toCidrs: [10.0.0.1/8]", `f.yaml: document 1, line 4: toCidrs[0]: "10.0.0.1/8": the address has bits beyond the network's: want 10.0.0.0/8`},
		{pol + "toCidrs: [example.org]", `toCidrs[0]: "example.org": want a network such as 10.0.0.0/8`},
		{pol + "exceptCidrs: [10.0.0.0/8]", "f.yaml: document 1, line 4: exceptCidrs: 10.0.0.0/8 is in none of the networks of toCidrs"},
		{pol + "protocol: sctp", `protocol: "sctp": want tcp or udp`},
		{pol + "audit: maybe", `audit: "maybe": want true or false`},
		{"kind: Policy\nname: p\naction: allow\naudit: true", "f.yaml: document 1, line 4: audit: only a policy that denies can be audited"},
		{pol + "ports: [90-80]", `ports[0]: "90-80": the range ends before it begins`},
		{pol + "portRanges: [{from: 1}]", `unknown field "from" of portRanges`},
		{pol + "from: {a: [b]}", "from.a: want one value, not a list"},
		{pol + "to: {a: ''}", `f.yaml: document 1, line 4: to: label "a=": key and value must not be empty`},
		{pol + "ports: [http]", `f.yaml: document 1, line 4: ports[0]: "http": want a port from 1 to 65535`},
		{pol + "ports: [0]", `ports[0]: "0": want a port`},
		{strings.Repeat("#", MaxBytes+1), "f.yaml: more than 1048576 bytes: split it into several files"},
		{strings.Repeat(vs+"---\n", MaxObjects+1), "f.yaml: more than 1000 documents"},
	} {
		_, err := parse(c[0])
		if err == nil {
			t.Errorf("%.80q was read, want %q", c[0], c[1])
			continue
		}
		if !strings.Contains(err.Error(), c[1]) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.80q: %q\nwant %q", c[0], err, c[1])
		}
	}
}

func TestUnique(t *testing.T) {
	objects, err := parse("kind: VirtualService\nname: Web\n---\nkind: Policy\nname: web\naction: deny\n---\nkind: VirtualService\nname: web\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := Unique(objects[:2]); err != nil {
		t.Error(err)
	}
	const want = "f.yaml: document 3, line 8: vservice/web is in f.yaml: document 1, line 1 already: leave one of them out"
	if err := Unique(objects); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestWrite: what is written is read as it was.
func TestWrite(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	addr := func() netip.Addr {
		if r.IntN(3) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(r.IntN(200))})
		}
		return netip.AddrFrom4([4]byte{1, 1, 1, byte(r.IntN(200))})
	}
	for i := range 500 {
		v := ax.VirtualService{Name: fmt.Sprint("v", i), Balancer: ax.BalancerType(1 + r.IntN(4)), Affinity: time.Duration(r.IntN(3)) * 90 * time.Second}
		if r.IntN(2) == 0 {
			v.Addr, v.Source = addr(), addr()
		}
		for p := range r.IntN(3) {
			v.Ports = append(v.Ports, ax.PortMapping{Virtual: uint16(1 + p + 50*r.IntN(1000)), Backend: uint16(1 + r.IntN(65535))})
		}
		for b := range r.IntN(4) {
			backend := ax.Backend{Addr: addr(), Weight: uint16(1 + r.IntN(3)), Port: uint16(1 + b)}
			switch {
			case r.IntN(2) == 0 && len(v.Ports) > 0:
				backend.Port, backend.External, backend.Addr = 0, true, netip.AddrFrom4([4]byte{192, 0, 2, byte(b)})
			case r.IntN(2) == 0:
				backend.Port, backend.Addr = 0, netip.AddrFrom4([4]byte{1, 1, 2, byte(b)})
			}
			v.Backends = append(v.Backends, backend)
		}
		p := ax.Policy{Name: "no", Action: ax.PolicyAction(1 + r.IntN(2))}
		if r.IntN(2) == 0 {
			p.From, p.To, p.Ports = ax.Labels{"yes": "no", "n": "1e3"}.Selector(), ax.Labels{"~": "null"}.Selector(), []ax.PortRange{{First: 80, Last: 80}}
		}
		if r.IntN(2) == 0 {
			p.From = ax.Selector{{Key: "n", Op: ax.SelectNotIn, Values: []string{"1e3", "no"}}, {Key: "yes", Op: ax.SelectAbsent}}
			p.Ports = []ax.PortRange{{First: 8000, Last: 8100}}
			p.CIDRs, p.Except = []netip.Prefix{netip.MustParsePrefix("::/0")}, []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}
			p.Proto, p.Audit = ax.UDP, p.Action == ax.PolicyDeny
		}
		var file bytes.Buffer
		for _, value := range []any{v, p} {
			text, err := Write(value)
			if err != nil {
				t.Fatal(err)
			}
			file.WriteString("---\n")
			file.Write(text)
		}
		objects, err := parse(file.String())
		if err != nil {
			t.Fatalf("%v\n%s", err, file.String())
		}
		if len(objects) != 2 || !reflect.DeepEqual(objects[0].Value, v) || !reflect.DeepEqual(objects[1].Value, p) {
			t.Fatalf("read %+v\nwant %+v, %+v\n%s", objects, v, p, file.String())
		}
	}
	if _, err := Write(ax.Node{}); err == nil {
		t.Error("a node was written")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"kind: VirtualService\nname: v\nbackends: [1.1.1.1=3]\nports: [80:8000]\n---\nkind: Policy\nname: p\naction: deny\nfrom: {a: b}\n",
		"a: &a [*a]", "kind: &k VirtualService\nname: *k\n", "? [a]\n: b", "<<: {kind: Policy}\n", "!!binary x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		objects, err := parse(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q: an error of several lines: %q", s, err)
			}
			return
		}
		for _, o := range objects {
			text, err := Write(o.Value)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parse(string(text))
			if err != nil || len(again) != 1 || again[0].Kind != o.Kind || again[0].Name != o.Name {
				t.Fatalf("%q is written as\n%s\nand read as %+v, %v", s, text, again, err)
			}
		}
	})
}
