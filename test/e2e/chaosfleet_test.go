//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// fleet is the applications of the chaos test. programs/chaos.c says how they talk, and what they print.
type fleet struct {
	t       *testing.T
	lab     *harness.Lab
	stop    string // the file that ends the requests
	servers []*harness.Proc
	clients []*harness.Proc // those that count, the churning servers too
	serve   []string        // address of each server
	targets []string        // HOST:PORT=ID of each server that doesn't churn
}

const (
	fleetPort = 7000
	churnPort = 7100
	fleetSize = 50
	// advanceLimit is how long a client may take to get an answer when all is well.
	advanceLimit = 2 * time.Minute
)

// launchFleet starts the servers, then the clients.
func launchFleet(t *testing.T, lab *harness.Lab) *fleet {
	t.Helper()
	f := &fleet{t: t, lab: lab, stop: lab.Path("stop")}
	python, node := lab.Need("python3")+" "+lab.Program("chaos.py"), lab.Need("node")+" "+lab.Program("chaos.js")
	lab.Output(lab.Need("javac"), "-d", lab.Path("classes"), lab.Program("Chaos.java"))
	java := lab.Need("java") + " -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp " + lab.Path("classes") + " Chaos"
	golang, libc, musl := lab.GoProgram("chaosgo"), lab.CProgram("chaos"), lab.MuslProgram("chaos")

	f.server(3, libc+" serve %[1]d %[2]s 3") // three processes accept on one socket
	f.server(1, libc+" poll %d %s")
	f.server(1, musl+" poll %d %s")
	f.server(3, golang+" -listen :%d -id %s")
	f.server(2, python+" serve %d %s")
	f.server(2, python+" aserve %d %s")
	f.server(2, node+" serve %d %s")
	f.server(1, java+" serve %d %s")
	for range 2 {
		f.churner(golang)
	}
	f.serving()

	const byIP, byName = false, true
	f.client(4, byIP, libc+" ask %s 20000 %s")
	f.client(2, byIP, musl+" ask %s 20000 %s")
	f.client(3, byName, libc+" ask %s 20000 %s")
	f.client(4, byIP, libc+" asknb %s 20000 %s")
	f.client(2, byName, libc+" asknb %s 20000 %s")
	f.client(3, byIP, golang+" -stop %s -pause 20ms -workers 2 %s")
	f.client(3, byName, golang+" -stop %s -pause 20ms -workers 2 %s")
	f.client(2, byIP, python+" ask %s 0.05 %s")
	f.client(2, byName, python+" ask %s 0.05 %s")
	f.client(1, byIP, python+" aask %s 0.05 3 %s")
	f.client(1, byName, python+" aask %s 0.05 3 %s")
	f.client(1, byIP, node+" ask %s 50 4 %s")
	f.client(1, byName, node+" ask %s 50 4 %s")
	f.client(1, byIP, java+" ask %s 50 3 %s")
	f.client(1, byName, java+" ask %s 50 3 %s")
	f.lookups(2, python+" lookup %s 0.05 %s")
	if n := len(f.servers) + len(f.clients); n != fleetSize {
		t.Fatalf("%d applications, want %d", n, fleetSize)
	}
	return f
}

// next is the address and the name of the next server.
func (f *fleet) next() (ip, name string) {
	n := len(f.serve) + 1
	return fmt.Sprintf("1.9.0.%d", n), fmt.Sprintf("chaos%d", n)
}

// server starts servers; the line takes a port and an id.
func (f *fleet) server(count int, line string) {
	for range count {
		ip, name := f.next()
		f.servers = append(f.servers, f.lab.Start(fmt.Sprintf("ax run --ip %s --name %s -- ", ip, name)+fmt.Sprintf(line, fleetPort, name)))
		f.serve = append(f.serve, fmt.Sprintf("%s:%d", ip, fleetPort))
		f.targets = append(f.targets, fmt.Sprintf("%s:%d=%s", ip, fleetPort, name))
	}
}

// churner starts a server that closes its listening socket and opens it again, all the time.
func (f *fleet) churner(golang string) {
	ip, name := f.next()
	f.clients = append(f.clients, f.lab.Start(fmt.Sprintf("ax run --ip %s --name %s -- %s -churn %d -id %s -stop %s -pause 20ms", ip, name, golang, churnPort, name, f.stop)))
	f.serve = append(f.serve, fmt.Sprintf("%s:%d", ip, churnPort))
}

// client starts clients of all servers, each beginning with another one; the line takes the stop file and the targets.
func (f *fleet) client(count int, byName bool, line string) {
	for range count {
		n := len(f.clients) % len(f.targets)
		var to []string
		for _, target := range slices.Concat(f.targets[n:], f.targets[:n]) {
			if _, id, _ := strings.Cut(target, "="); byName {
				target = fmt.Sprintf("%s:%d=%s", id, fleetPort, id)
			}
			to = append(to, target)
		}
		f.clients = append(f.clients, f.lab.Start("ax run -- "+fmt.Sprintf(line, f.stop, strings.Join(to, " "))))
	}
}

// lookups starts clients that only look up the servers' names.
func (f *fleet) lookups(count int, line string) {
	var names []string
	for _, target := range f.targets {
		address, id, _ := strings.Cut(target, "=")
		ip, _, _ := strings.Cut(address, ":")
		names = append(names, id+"="+ip)
	}
	for range count {
		f.clients = append(f.clients, f.lab.Start("ax run -- "+fmt.Sprintf(line, f.stop, strings.Join(names, " "))))
	}
}

// serving waits until the servers that don't churn are in the table, once each.
func (f *fleet) serving() {
	f.t.Helper()
	f.lab.Eventually(2*runLimit, "all servers are in the table", func() error {
		servers, err := f.lab.Servers()
		if err != nil {
			return err
		}
		var got []string
		for _, s := range servers {
			if s.ServiceAddress.Port == fleetPort {
				got = append(got, s.ServiceAddress.String())
			}
		}
		want := slices.DeleteFunc(slices.Clone(f.serve), func(a string) bool { return !strings.HasSuffix(a, fmt.Sprintf(":%d", fleetPort)) })
		return sameSet(got, want)
	})
}

func sameSet(got, want []string) error {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// counters are what a client printed last, one for each of its threads.
func counters(out string) []int {
	lines := harness.Lines(out)
	for _, line := range slices.Backward(lines[:max(0, len(lines))]) {
		rest, ok := strings.CutPrefix(line, "at ")
		if !ok {
			continue
		}
		var all []int
		for field := range strings.FieldsSeq(rest) {
			n, err := strconv.Atoi(field)
			if err != nil {
				return nil
			}
			all = append(all, n)
		}
		return all
	}
	return nil
}

func (f *fleet) total() (sum int) {
	for _, c := range f.clients {
		for _, n := range counters(c.Stdout()) {
			sum += n
		}
	}
	return sum
}

// advances waits until every thread of every client has got another answer.
func (f *fleet) advances(when string) {
	f.t.Helper()
	before := make([][]int, len(f.clients))
	for i, c := range f.clients {
		before[i] = counters(c.Stdout())
	}
	f.lab.Eventually(advanceLimit, "all go on "+when, func() error {
		var stuck []error
		for i, c := range f.clients {
			now := counters(c.Stdout())
			if len(now) == 0 {
				stuck = append(stuck, fmt.Errorf("%s: nothing yet", c))
			}
			for thread, n := range now {
				if len(before[i]) == len(now) && n <= before[i][thread] {
					stuck = append(stuck, fmt.Errorf("%s: thread %d has got %d answers", c, thread, n))
				}
			}
		}
		return errors.Join(stuck...)
	})
}

// finish ends the requests and reports those that failed. The churning servers stay, with one socket.
func (f *fleet) finish() {
	f.t.Helper()
	f.lab.WriteFile("stop", "")
	total := 0
	f.lab.Eventually(advanceLimit, "all clients have ended", func() error {
		total = 0
		var left []error
		for _, c := range f.clients {
			_, done, ok := strings.Cut(c.Stdout(), "done ")
			n, err := strconv.Atoi(strings.Fields(done + " x")[0])
			if !ok || err != nil {
				left = append(left, fmt.Errorf("%s: running: %v", c, c.Running()))
			}
			total += n
		}
		return errors.Join(left...)
	})
	for _, p := range slices.Concat(f.clients, f.servers) {
		if failed := failures(p.Stdout()); len(failed) > 0 || p.Stderr() != "" {
			f.t.Errorf("%s: %d failed: %s %s", p, len(failed), strings.Join(failed[:min(len(failed), 5)], "; "), p.Stderr())
		}
	}
	for _, s := range f.servers {
		if !s.Running() {
			f.t.Errorf("%s has ended", s)
		}
	}
	f.t.Logf("%d requests in all", total)
}

// equalsTable compares the service table and the sockets with what listens. The agent's own table may hold one more socket
// for each time that it was killed: one that it had made, and nobody got.
func (f *fleet) equalsTable(kills int) {
	f.t.Helper()
	f.lab.Eventually(runLimit, "the table equals the truth", func() error {
		servers, err := f.lab.Servers()
		sockets, err2 := f.lab.Sockets()
		truth, err3 := f.lab.HostPorts()
		if err := errors.Join(err, err2, err3); err != nil {
			return err
		}
		var addresses, ports, real []string
		for _, s := range servers {
			addresses = append(addresses, s.ServiceAddress.String())
			ports = append(ports, strconv.Itoa(s.HostAddress.Port))
		}
		for _, port := range truth {
			real = append(real, strconv.Itoa(port))
		}
		if len(sockets) != len(f.serve) {
			err = fmt.Errorf("%d sockets, want %d: %v", len(sockets), len(f.serve), sockets)
		}
		var open int
		for _, line := range harness.Lines(f.lab.Metrics("appswitch_nodeagent_sockets ")) {
			_, value, _ := strings.Cut(line, " ")
			if n, err := strconv.Atoi(value); err == nil {
				open = n
			}
		}
		if most := len(f.serve) + kills; open < len(f.serve) || open > most {
			err = errors.Join(err, fmt.Errorf("the agent's table has %d sockets, want %d to %d", open, len(f.serve), most))
		}
		return errors.Join(err, sameSet(addresses, f.serve), sameSet(ports, real))
	})
}
