//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// pairs is how many applications and destinations TestExplainIsWhatHappens draws.
const pairs = 1000

// outside are the ports of the neighbour at which something answers, and one at which nothing does.
const outsidePort, closedPort = 7000, 7001

// explained is what explain says about a connect.
type explained struct {
	Verdict, Reason, Errno string
	Destination            harness.Address
	Candidates             []struct {
		Eligible bool
		Reason   string
		Endpoint struct {
			Name     string
			External bool
		}
	}
	Revision string
}

// connected is what programs/prober prints.
type connected struct {
	Dest, Answer, Peer, Errno, Error string
}

// prober is an application that connects where it is told.
type prober struct {
	name  string
	proc  *harness.Proc
	stdin *os.File
	ports []string // on which it listens
	asked []string // destinations, in order
	said  []explained
}

// town is a table of applications and services drawn at random.
type town struct {
	t       *testing.T
	lab     *harness.Lab
	random  *rand.Rand
	probers []*prober
	dests   []string
}

// TestExplainIsWhatHappens draws applications, virtual services, policies and destinations at random, and compares what
// explain says about a connect with what the application sees when it really connects.
func TestExplainIsWhatHappens(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("E2E_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("E2E_SEED: %v", err)
		}
	}
	t.Logf("E2E_SEED=%d draws the same again", seed)
	w := &town{t: t, lab: node(t), random: rand.New(rand.NewPCG(seed, 0))}
	w.build()
	began := time.Now()
	for range pairs {
		p, dest := w.probers[w.random.IntN(len(w.probers))], w.dests[w.random.IntN(len(w.dests))]
		p.asked = append(p.asked, dest)
		p.said = append(p.said, w.explain(p, dest))
	}
	for _, p := range w.probers {
		if _, err := p.stdin.WriteString(strings.Join(p.asked, "\n") + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	verdicts, wrong := map[string]int{}, 0
	for _, p := range w.probers {
		for i, got := range w.results(p) {
			said := p.said[i]
			verdicts[said.Verdict+" "+strings.SplitN(said.Reason, ":", 2)[0]]++
			if problem := w.compare(p, said, got); problem != "" {
				if wrong++; wrong <= 10 {
					t.Errorf("%s to %s: %s\nexplain: %+v\nconnect: %+v", p.name, got.Dest, problem, said, got)
				}
			}
		}
	}
	t.Logf("%d pairs in %v: %v", pairs, time.Since(began).Round(time.Millisecond), verdicts)
	if wrong > 0 {
		t.Errorf("explain and connect differ in %d of %d pairs", wrong, pairs)
	}
	for _, kind := range []string{"VERDICT_ALLOW shared-label", "VERDICT_ALLOW external", "VERDICT_ALLOW policy-allow", "VERDICT_DENY no-shared-label",
		"VERDICT_DENY no-endpoint", "VERDICT_DENY policy-deny", "VERDICT_DENY reserved-port", "VERDICT_PASSTHROUGH external", "VERDICT_PASSTHROUGH loopback"} {
		if verdicts[kind] == 0 {
			t.Errorf("no pair is %s: the table proves less than it should", kind)
		}
	}
}

func (w *town) pick(from ...string) string { return from[w.random.IntN(len(from))] }

// build draws the table, and waits until everybody knows it.
func (w *town) build() {
	w.t.Helper()
	program := w.lab.GoProgram("prober")
	w.lab.Neighbour().Start(program, "-id", "outside", "-listen", strconv.Itoa(outsidePort))
	listens(w.lab, net.JoinHostPort(harness.NeighbourIP, strconv.Itoa(outsidePort)))
	var addresses []string
	listening := 0
	for i := range 16 {
		p := &prober{name: fmt.Sprintf("app%d", i), ports: []string{"80", "81", "82"}[:1+w.random.IntN(3)]}
		address, role := fmt.Sprintf("1.1.1.%d", 1+w.random.IntN(8)), w.pick("a", "b", "c")
		if i < 6 { // of every role there are two, at addresses of their own and on all ports
			address, role, p.ports = fmt.Sprintf("1.1.1.%d", 1+i), string("abc"[i%3]), []string{"80", "81", "82"}
		}
		labels := "role=" + role
		if w.random.IntN(3) == 0 {
			labels += ",tier=" + w.pick("front", "back")
		}
		w.start(p, program, "--ip", address, "--labels", labels)
		listening += len(p.ports)
		addresses = append(addresses, address)
	}
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	for _, address := range addresses {
		for _, port := range []string{"80", "81", "82", "83"} {
			w.dests = append(w.dests, net.JoinHostPort(address, port))
		}
	}
	w.services(addresses)
	for i, policy := range []string{
		`{"action":"POLICY_ACTION_DENY","from":{"role":"a"},"to":{"role":"a"},"ports":[81]}`,
		`{"action":"POLICY_ACTION_ALLOW","from":{"role":"b"},"to":{"role":"c"}}`,
	} {
		w.lab.Output("curl -sS -f --max-time 10 -X PUT -d", policy, fmt.Sprintf("%s/v1/policies/p%d", harness.REST, i))
	}
	// An address whose only application has ended.
	ended := w.lab.Start("ax run --ip 1.1.1.99 --name ended --", program, "-listen", "80")
	w.lab.Serving("1.1.1.99:80", 1)
	ended.Stop()
	outside := func(port int) string { return net.JoinHostPort(harness.NeighbourIP, strconv.Itoa(port)) }
	w.dests = append(w.dests, "1.1.1.99:80", outside(outsidePort), outside(closedPort),
		harness.NodeIP+":6664", harness.NodeIP+":6665", harness.NodeIP+":6666", harness.NodeIP+":39999", "127.0.0.1:80", "127.0.0.1:99")
	var servers []harness.Server
	w.lab.Eventually(runLimit, "all of them listen, and the ended one does not", func() (err error) {
		if servers, err = w.lab.Servers(); err == nil && len(servers) != listening {
			err = fmt.Errorf("%d servers, want %d", len(servers), listening)
		}
		return err
	})
	for i, s := range servers {
		if i%4 == 0 {
			w.dests = append(w.dests, s.HostAddress.String())
		}
	}
	w.settle()
}

func (w *town) start(p *prober, program string, flags ...string) {
	w.t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	defer read.Close()
	w.t.Cleanup(func() { write.Close() })
	p.stdin = write
	args := slices.Concat([]string{"ax", "run", "--name", p.name}, flags, []string{"--", program, "-id", p.name, "-listen", strings.Join(p.ports, ",")})
	p.proc = w.lab.StartCmd(harness.Cmd{Args: args, Stdin: read})
	w.probers = append(w.probers, p)
	w.dests = append(w.dests, p.name+":"+p.ports[0], p.name+":83")
}

// services makes virtual services of every kind, with backends that are there, that are not, and outside.
func (w *town) services(addresses []string) {
	w.t.Helper()
	outside, closed := fmt.Sprintf("%s:%d", harness.NeighbourIP, outsidePort), fmt.Sprintf("%s:%d", harness.NeighbourIP, closedPort)
	for i := range 12 {
		name, ip := fmt.Sprintf("vs%d", i), fmt.Sprintf("3.3.3.%d", i+1)
		var backends []string
		for _, at := range w.random.Perm(len(addresses))[:1+w.random.IntN(min(3, len(addresses)))] {
			backends = append(backends, addresses[at])
		}
		args := []string{"--ip", ip, "--lbtype", w.pick("Random", "RoundRobin", "LeastConn", "Maglev")}
		switch i {
		case 0, 1:
			backends = []string{outside}
		case 2:
			backends = []string{closed} // allowed, and then refused by the machine outside
		case 3:
			backends = []string{"9.9.9.9"} // unknown
		case 4:
			backends = append(backends, closed) // one of several refuses: another is tried
			backends = append(backends, outside)
		}
		slices.Sort(backends)
		backends = slices.Compact(backends)
		for j := range backends {
			if w.random.IntN(3) == 0 {
				backends[j] += "=3"
			}
		}
		if !strings.Contains(strings.Join(backends, ","), ":") {
			args = append(args, "--ports", "8080:80,8081:81")
		}
		vservice(w.t, w.lab, name, strings.Join(append(args, "--backends", strings.Join(backends, ",")), " "))
		w.dests = append(w.dests, ip+":80")
		if i < 5 {
			w.dests = append(w.dests, fmt.Sprintf("%s:%d", ip, outsidePort), fmt.Sprintf("%s:%d", name, outsidePort), fmt.Sprintf("%s:%d", ip, closedPort))
		}
		if i > 2 && i != 4 {
			w.dests = append(w.dests, ip+":8080", name+":8080", ip+":8081")
		}
	}
}

// settle waits until the agent's routes are those of the whole table.
func (w *town) settle() {
	w.t.Helper()
	var table struct{ Revision string }
	w.decode(w.lab.Output("curl -sS -f --max-time 10 "+harness.REST+"/v1/policies"), &table)
	want, err := strconv.ParseFloat(table.Revision, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	w.lab.Eventually(runLimit, "the agent knows the table", func() error {
		metric := w.lab.Metrics("appswitch_nodeagent_routes_revision")
		_, text, _ := strings.Cut(metric, " ")
		if have, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil || have < want {
			return fmt.Errorf("%q, %w; want %v", metric, err, want)
		}
		return nil
	})
}

func (w *town) decode(text string, into any) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		w.t.Fatalf("%v in %s", err, text)
	}
}

func (w *town) explain(p *prober, dest string) explained {
	w.t.Helper()
	reply, err := w.lab.Get(harness.REST + "/v1/explain?" + url.Values{"app": {p.name}, "destination": {dest}}.Encode())
	if err != nil || reply.Status != 200 {
		w.t.Fatalf("explain %s to %s: %v %+v", p.name, dest, err, reply)
	}
	var e explained
	w.decode(reply.Body, &e)
	return e
}

// results waits until a prober has done all that it was told.
func (w *town) results(p *prober) (out []connected) {
	w.t.Helper()
	w.lab.Eventually(2*time.Minute, p.name+" has connected everywhere", func() error {
		lines := harness.Lines(p.proc.Stdout())
		if len(lines) < len(p.asked) {
			return fmt.Errorf("%d of %d: %s", len(lines), len(p.asked), p.proc.Stderr())
		}
		out = make([]connected, len(lines))
		for i, line := range lines {
			w.decode(line, &out[i])
		}
		return nil
	})
	return out
}

// compare says in what a connect differs from what explain said, if it does.
func (w *town) compare(p *prober, said explained, got connected) string {
	var eligible []string // who may answer
	refuses := 0          // of them, those that are outside and refuse
	for _, c := range said.Candidates {
		switch {
		case !c.Eligible:
		case c.Endpoint.External:
			eligible = append(eligible, "outside")
		default:
			eligible = append(eligible, c.Endpoint.Name)
		}
	}
	if said.Destination.Port == closedPort {
		refuses = len(eligible)
	}
	switch said.Verdict {
	case "VERDICT_DENY":
		if got.Errno != said.Errno || got.Errno == "" {
			return "errno"
		}
	case "VERDICT_ALLOW":
		if refuses > 0 && refuses == len(eligible) {
			if got.Errno != "ECONNREFUSED" {
				return "a backend that refuses"
			}
			break
		}
		if !slices.Contains(eligible, got.Answer) {
			return "answered by none of the candidates"
		}
		if got.Peer != said.Destination.String() {
			return "peer"
		}
	case "VERDICT_PASSTHROUGH":
		answer, errno := w.native(p, said.Destination)
		if got.Answer != answer || got.Errno != errno {
			return fmt.Sprintf("as the machine would, want %q %q", answer, errno)
		}
	default:
		return "verdict"
	}
	return ""
}

// native is what happens to a connect that AppSwitch has no part in.
func (w *town) native(p *prober, dest harness.Address) (answer, errno string) {
	switch {
	case dest.IP == harness.NeighbourIP && dest.Port == outsidePort:
		return "outside", ""
	case dest.IP == "127.0.0.1" && slices.Contains(p.ports, strconv.Itoa(dest.Port)):
		return p.name, "" // its own loopback
	}
	return "", "ECONNREFUSED"
}
