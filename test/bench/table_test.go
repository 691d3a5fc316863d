//go:build bench

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

const (
	filled      = 10_000 // endpoints in the table, each with a name
	dnsRounds   = 7
	dnsTime     = "1s"
	listRounds  = 15
	corednsAddr = "127.0.0.1:5300"
	ourAddr     = "127.0.0.1:53"
)

var daemons = []string{"registryd", "routerd", "resolverd", "nodeagentd", "gatewayd"}

// TestFullTable measures the services with a big table: memory, DNS beside CoreDNS, lists.
func TestFullTable(t *testing.T) {
	lab := harness.New(t)
	services := lab.StartShape(harness.Processes)
	time.Sleep(2 * time.Second) // the garbage of the start is collected
	idle := memories(t, services)
	fill := lab.Start(lab.GoProgram("fill"), "-count", strconv.Itoa(filled))
	lab.Eventually(wait, "the table is filled", func() error { return said(fill, "filled") })
	lab.Eventually(wait, "the names are there", func() error { return answers(lab, "127.0.0.1", "53") })
	other := startCoreDNS(t, lab, corednsAddr)
	load := lab.GoProgram("load")

	header("10000 names, A", "CoreDNS", "resolver", "ratio", "goal")
	compareDNS(t, lab, load, other.PID(), services.Part("resolverd").PID())
	lists(t, lab)
	time.Sleep(2 * time.Second)
	full := memories(t, services)
	header("memory, PSS", "idle", "10000 endpoints", "ratio", "goal")
	for _, name := range daemons {
		row(name, mib(idle[name]), mib(full[name]), fmt.Sprintf("%.2f", full[name]/idle[name]), "")
	}
	row("CoreDNS", "", mib(pss(t, other.PID())), "", "")
}

// compareDNS asks both servers the same in turn: one query after the other, and as many as they can take.
func compareDNS(t *testing.T, lab *harness.Lab, load string, otherPID, ourPID int) {
	t.Helper()
	var latency, rate [2][]sample
	var cost [2][]float64 // processor time of the server for a query, µs
	for range dnsRounds {
		for i, server := range []struct {
			addr string
			pid  int
		}{{corednsAddr, otherPID}, {ourAddr, ourPID}} {
			latency[i] = append(latency[i], once(t, lab.Output(load+" dns -duration "+dnsTime+" -address "+server.addr)))
			before := processor(t, server.pid)
			s := once(t, lab.Output(load+" dnsflood -threads 4 -duration "+dnsTime+" -address "+server.addr))
			rate[i] = append(rate[i], s)
			seconds, err := time.ParseDuration(dnsTime)
			if err != nil {
				t.Fatal(err)
			}
			cost[i] = append(cost[i], (processor(t, server.pid)-before)*1e6/(s.PerSecond*seconds.Seconds()))
		}
	}
	n, a := medians(latency[0]), medians(latency[1])
	times("one query at a time, p50", n.P50, a.P50, 0)
	times("one query at a time, p99", n.P99, a.P99, 0)
	rates("4 clients with 32 queries each, per second", medians(rate[0]).PerSecond, medians(rate[1]).PerSecond, 1.5)
	times("processor time for a query", quantile(cost[0], 0.5), quantile(cost[1], 0.5), 0)
}

// lists measures what reads the whole table, and beside it a request that reads nothing of it.
func lists(t *testing.T, lab *harness.Lab) {
	t.Helper()
	header("REST", "/v1/nodes", "/v1/servers", "ratio", "goal")
	const curl = "curl -sS -f -o /dev/null -w %{time_total} "
	var small, big, command []float64
	for range listRounds {
		small = append(small, seconds(t, lab.Output(curl+harness.REST+"/v1/nodes")))
		big = append(big, seconds(t, lab.Output(curl+harness.REST+"/v1/servers")))
		began := time.Now()
		lab.Output("ax get servers")
		command = append(command, float64(time.Since(began).Microseconds()))
	}
	times("GET, p50", quantile(small, 0.5), quantile(big, 0.5), 0)
	times("GET, p99", quantile(small, 0.99), quantile(big, 0.99), 0)
	alone("ax get servers, p50", quantile(command, 0.5))
}

func seconds(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v * 1e6
}

// processor returns the processor time that a process has used, in seconds.
func processor(t *testing.T, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the name may have blanks
	fields := strings.Fields(rest)
	ticks := 0.0
	for _, f := range fields[11:13] { // utime and stime, in hundredths
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += v
	}
	return ticks / 100
}

func memories(t *testing.T, services *harness.System) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, name := range daemons {
		out[name] = pss(t, services.Part(name).PID())
	}
	return out
}

// pss returns the memory of a process, what it shares counted in proportion, in bytes.
func pss(t *testing.T, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib * 1024
		}
	}
	t.Fatalf("no Pss of process %d", pid)
	return 0
}

func mib(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }
