//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

const (
	rounds      = 15 // of each comparison
	roundTime   = "350ms"
	startups    = 60 // of `true`
	listens     = 40 // listen() until connectable
	names       = 20 // listen() until the name resolves
	appAddress  = "1.1.1.1:7000"
	hostAddress = harness.NodeIP + ":7000"
	wait        = time.Minute
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// sample is what programs/load prints.
type sample struct {
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	PerSecond float64 `json:"perSecond"`
}

// TestBench prints the table. It fails where something can't be measured, not where it is slow.
func TestBench(t *testing.T) {
	lab := harness.New(t)
	lab.StartDaemon()
	load := lab.GoProgram("load")
	native := lab.Start(load+" serve -address", hostAddress)
	managed := lab.Start("ax run --ip 1.1.1.1 -- "+load+" serve -address", "0.0.0.0:7000")
	for _, p := range []*harness.Proc{native, managed} {
		lab.Eventually(wait, "the server listens", func() error { return said(p, "listening") })
	}
	lab.Serving(appAddress, 2) // over TCP and UDP

	header("what", "native", "ax run", "ratio", "goal")
	for _, threads := range []string{"1", "8"} {
		n, a := compare(t, lab, load, "connect", threads)
		label := "connect, " + plural(threads)
		// With several threads what counts is that they don't queue up: the rate.
		p50, rate := 1.6, 0.0
		if threads != "1" {
			p50, rate = 0, 0.8
		}
		times(label+", p50", n.P50, a.P50, p50)
		times(label+", p99", n.P99, a.P99, 0)
		rates(label+", per second", n.PerSecond, a.PerSecond, rate)
	}
	for _, threads := range []string{"1", "8"} {
		n, a := compare(t, lab, load, "request", threads)
		label := "connect + 1 byte + close, " + plural(threads)
		times(label+", p50", n.P50, a.P50, 0)
		times(label+", p99", n.P99, a.P99, 0)
		rates(label+", per second", n.PerSecond, a.PerSecond, 0)
	}
	n, a := compare(t, lab, load, "echo", "1")
	times("echo round trip, p50", n.P50, a.P50, 1.02)
	times("echo round trip, p99", n.P99, a.P99, 0)
	n, a = compare(t, lab, load, "message", "1")
	times("echo by sendmsg and recvmsg, p50", n.P50, a.P50, 1.02)
	n, a = compare(t, lab, load, "stream", "1")
	rates("throughput, MB/s", n.PerSecond, a.PerSecond, 0.98)

	for _, c := range []struct{ kind, what string }{
		{"udpconn", "UDP by send and recv"}, {"udp", "UDP by sendto and recvfrom"}, {"udpmsg", "UDP by sendmsg and recvmsg"},
	} {
		n, a = compare(t, lab, load, c.kind, "1")
		times(c.what+", p50", n.P50, a.P50, 0)
		times(c.what+", p99", n.P99, a.P99, 0)
	}

	startUp(t, lab)
	listenToConnectable(t, lab, load)
	listenToName(t, lab, load)
}

// compare measures one kind of operation on both sides in turn.
func compare(t *testing.T, lab *harness.Lab, load, kind, threads string) (native, managed sample) {
	t.Helper()
	var n, a []sample
	for range rounds {
		n = append(n, once(t, lab.Output(load+" "+kind+" -duration "+roundTime+" -threads "+threads+" -address "+hostAddress)))
		a = append(a, once(t, lab.Output("ax run -- "+load+" "+kind+" -duration "+roundTime+" -threads "+threads+" -address "+appAddress)))
	}
	return medians(n), medians(a)
}

func once(t *testing.T, output string) sample {
	t.Helper()
	var s sample
	if err := json.Unmarshal([]byte(output), &s); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return s
}

func medians(samples []sample) sample {
	pick := func(get func(sample) float64) float64 {
		var values []float64
		for _, s := range samples {
			values = append(values, get(s))
		}
		return quantile(values, 0.5)
	}
	return sample{
		P50:       pick(func(s sample) float64 { return s.P50 }),
		P99:       pick(func(s sample) float64 { return s.P99 }),
		PerSecond: pick(func(s sample) float64 { return s.PerSecond }),
	}
}

// startUp compares `true` with `ax run true`, in turn. One shell loops, so that the harness is not measured.
func startUp(t *testing.T, lab *harness.Lab) {
	t.Helper()
	const loop = `i=0; while [ $i -lt %d ]; do date +%%s%%N; /bin/true; date +%%s%%N; ax run -- /bin/true; date +%%s%%N; i=$((i+1)); done`
	stamps := harness.Lines(lab.Output("sh -c", fmt.Sprintf(loop, startups)))
	if len(stamps) != 3*startups {
		t.Fatalf("%d time stamps, want %d", len(stamps), 3*startups)
	}
	var native, managed []float64
	for i := 0; i < len(stamps); i += 3 {
		native = append(native, micros(t, stamps[i], stamps[i+1]))
		managed = append(managed, micros(t, stamps[i+1], stamps[i+2]))
	}
	n50, a50 := quantile(native, 0.5), quantile(managed, 0.5)
	row("start-up of true, p50", us(n50), us(a50), "+"+us(a50-n50), verdict(a50-n50 <= 8000, "+8000 µs"))
	n99, a99 := quantile(native, 0.99), quantile(managed, 0.99)
	row("start-up of true, p99", us(n99), us(a99), "+"+us(a99-n99), "")
}

// listenToConnectable measures from the return of listen() in one application until another one is let in. The other one
// is trying all the time.
func listenToConnectable(t *testing.T, lab *harness.Lab, load string) {
	t.Helper()
	server, tellServer := interactive(t, lab, "ax run --ip 1.1.1.2 -- "+load+" listen")
	client, tellClient := interactive(t, lab, "ax run -- "+load+" await")
	var took []float64
	for i := range listens {
		port := strconv.Itoa(8000 + i)
		tellClient("1.1.1.2:" + port)
		time.Sleep(20 * time.Millisecond)
		tellServer("0.0.0.0:" + port)
		listened := stamp(lab, server, "0.0.0.0:"+port)
		took = append(took, micros(t, listened, stamp(lab, client, "1.1.1.2:"+port)))
	}
	alone("listen() until another app connects, p50", quantile(took, 0.5))
	alone("listen() until another app connects, p99", quantile(took, 0.99))
}

// listenToName measures from the return of listen() of an application with a new name until another one can look it up.
func listenToName(t *testing.T, lab *harness.Lab, load string) {
	t.Helper()
	client, tellClient := interactive(t, lab, "ax run -- "+load+" lookup")
	var took []float64
	for i := range names {
		name := fmt.Sprintf("name-%d.appswitch.local", i)
		server, tellServer := interactive(t, lab, fmt.Sprintf("ax run --name name-%d -- %s listen", i, load))
		tellClient(name)
		time.Sleep(20 * time.Millisecond)
		tellServer("0.0.0.0:80")
		listened := stamp(lab, server, "0.0.0.0:80")
		took = append(took, micros(t, listened, stamp(lab, client, name)))
	}
	alone("listen() until DNS answers, p50", quantile(took, 0.5))
	alone("listen() until DNS answers, p99", quantile(took, 0.99))
}

// interactive starts a program that is told what to do line by line.
func interactive(t *testing.T, lab *harness.Lab, line string) (*harness.Proc, func(string)) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := lab.StartCmd(harness.Cmd{Args: strings.Fields(line), Stdin: read})
	read.Close()
	t.Cleanup(func() { write.Close() })
	lab.Eventually(wait, line+" is ready", func() error { return said(p, "ready") })
	return p, func(text string) {
		if _, err := fmt.Fprintln(write, text); err != nil {
			t.Fatal(err)
		}
	}
}

// stamp waits for the line of output that begins with text and returns the time after it.
func stamp(lab *harness.Lab, p *harness.Proc, text string) string {
	var found string
	lab.Eventually(wait, text, func() error {
		for _, line := range harness.Lines(p.Stdout()) {
			if rest, ok := strings.CutPrefix(line, text+" "); ok {
				found = rest
				return nil
			}
		}
		return fmt.Errorf("output %q, errors %q", p.Stdout(), p.Stderr())
	})
	return found
}

func said(p *harness.Proc, text string) error {
	if !p.Running() {
		return fmt.Errorf("it ended: %s", p.Stderr())
	}
	if !strings.Contains(p.Stdout(), text) {
		return fmt.Errorf("it said %q", p.Stdout())
	}
	return nil
}

func micros(t *testing.T, from, to string) float64 {
	t.Helper()
	a, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	b, err := strconv.ParseInt(to, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return float64(b-a) / 1e3
}

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1))]
}

func header(cells ...string) {
	out, _ := exec.Command("uname", "-srm").Output()
	fmt.Printf("\n%s", out)
	row(cells[0], cells[1], cells[2], cells[3], cells[4])
	fmt.Println(strings.Repeat("-", 100))
}

func row(what, native, managed, ratio, goal string) {
	fmt.Printf("%-44s %14s %14s %10s  %s\n", what, native, managed, ratio, goal)
}

// times writes a comparison of durations; most is the goal for their ratio, 0 for none.
func times(what string, native, managed, most float64) {
	ratio := managed / native
	goal := ""
	if most > 0 {
		goal = verdict(ratio <= most, fmt.Sprintf("at most %.2f", most))
	}
	row(what, us(native), us(managed), fmt.Sprintf("%.2f", ratio), goal)
}

// rates writes a comparison of rates; least is the goal for their ratio, 0 for none.
func rates(what string, native, managed, least float64) {
	ratio := managed / native
	goal := ""
	if least > 0 {
		goal = verdict(ratio >= least, fmt.Sprintf("at least %.2f", least))
	}
	row(what, fmt.Sprintf("%.0f", native), fmt.Sprintf("%.0f", managed), fmt.Sprintf("%.2f", ratio), goal)
}

func plural(threads string) string {
	if threads == "1" {
		return "1 thread"
	}
	return threads + " threads"
}

func alone(what string, value float64) { row(what, "", us(value), "", "") }

func us(v float64) string { return fmt.Sprintf("%.1f µs", v) }

func verdict(ok bool, goal string) string {
	if ok {
		return goal + "  ok"
	}
	return goal + "  MISSED"
}
