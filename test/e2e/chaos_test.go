//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// chaosSize is how much the daemons have to suffer. CHAOS=full, which `make chaos` sets, is the large one.
type chaosSize struct {
	agent  int // kills of the agent, every other one at a crash point
	others int // kills of each of the others
}

var chaosSizes = map[string]chaosSize{
	"":     {agent: 10, others: 4},
	"full": {agent: 50, others: 20},
}

const (
	// Daemons stay down for downLeast and at most downSpread more.
	downLeast, downSpread = time.Second, 500 * time.Millisecond
	// The agent is killed this long after its start at the latest; the others live longer, or they would never be there together.
	agentLife, otherLife = 3 * time.Second, 8 * time.Second
	// A crash point is passed up to crashPasses times first.
	crashPasses = 50
	// crashLimit is how long it may take until a crash point is passed; all are under this load.
	crashLimit = time.Minute
)

// TestChaos kills every daemon again and again, the agent every other time in the middle of a call of a certain kind, while
// fifty applications connect to one another. Nobody's connect fails and nothing waits for ever; in the end the table
// holds what listens, and nothing has leaked.
//
// CHAOS_SEED repeats the kills of an earlier run (not what the kernel made of them).
func TestChaos(t *testing.T) {
	size, ok := chaosSizes[os.Getenv("CHAOS")]
	if !ok {
		t.Fatalf("CHAOS=%s: want full, or nothing", os.Getenv("CHAOS"))
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CHAOS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("CHAOS_SEED=%s: %v", s, err)
		}
	}
	t.Logf("CHAOS_SEED=%d", seed)
	lab := harness.New(t)
	shape := harness.Processes
	if lab.CurrentShape() == harness.Pairs {
		shape = harness.Pairs
	}
	system := lab.StartShape(shape)
	agent := system.Part("nodeagentd")
	crashing := lab.CrashingAgent()
	fleet := launchFleet(t, lab)
	agent.Stop()
	agent.Replace(crashing)
	agent.Start()
	lab.Ready()
	fleet.serving()
	fleet.advances("before anything is killed")
	before, began := fleet.total(), time.Now()

	c := &chaos{t: t, lab: lab, random: rand.New(rand.NewPCG(seed, 0)), points: crashPoints(t)}
	c.add(agent, size.agent, agentLife)
	c.agent = c.victims[0]
	for _, name := range []string{"registryd", "routerd", "resolverd", "gatewayd"} {
		for _, d := range system.Parts(name) {
			c.add(d, size.others, otherLife)
		}
	}
	if etcd := system.Etcd(); etcd != nil {
		c.add(etcd, size.others, otherLife)
	}
	c.run()
	lab.Ready()
	took, made := time.Since(began), fleet.total()-before
	t.Logf("%d requests in %v, of which the agent was away for %v: %.0f per second while it was there; crash points passed: %v",
		made, took.Round(time.Second), c.away.Round(time.Second), float64(made)/(took-c.away).Seconds(), c.crashes)

	fleet.advances("after the last restart")
	time.Sleep(2 * time.Second) // for what leaks with every request
	fleet.finish()
	fleet.serving()
	fleet.equalsTable(size.agent)
	worn := held(t, agent)
	agent.Stop()
	agent.Start()
	lab.Ready()
	fleet.serving()
	const slack = 5 // connections of REST and gRPC come and go
	lab.Eventually(runLimit, "the agent holds what a new one holds", func() error {
		if fresh := held(t, agent); worn.Descriptors > fresh.Descriptors+slack || worn.Goroutines > fresh.Goroutines+slack {
			return fmt.Errorf("the last one of the chaos held %+v, a new one %+v", worn, fresh)
		}
		return nil
	})
}

// held is what the agent holds on to, but for the threads that it has served: it keeps a descriptor of each until that ends,
// and a new one has served none.
func held(t *testing.T, agent *harness.Daemon) harness.Usage {
	t.Helper()
	u, err := agent.Usage()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", agent.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.Contains(target, "pidfd") {
			u.Descriptors--
		}
	}
	return u
}

// chaos kills daemons and starts them again.
type chaos struct {
	t       *testing.T
	lab     *harness.Lab
	random  *rand.Rand
	victims []*victim
	agent   *victim
	points  []string      // at which the agent has not been killed in this round
	crashes []string      // at which it has been killed
	away    time.Duration // in all
}

// victim is a daemon that has yet to die a number of times.
type victim struct {
	*harness.Daemon
	left  int
	life  time.Duration // at most
	next  time.Time     // when it is killed or, if it is dead, started
	since time.Time     // when that came about
	crash string        // crash point at which it kills itself
}

func (c *chaos) add(d *harness.Daemon, kills int, life time.Duration) {
	v := &victim{Daemon: d, left: kills, life: life}
	v.next = c.in(0, life)
	c.victims = append(c.victims, v)
}

func (c *chaos) in(least, spread time.Duration) time.Time {
	return time.Now().Add(least + time.Duration(c.random.Int64N(int64(spread))))
}

// run goes on until every victim has died as often as it should, and lives.
func (c *chaos) run() {
	for {
		due := slices.MinFunc(c.victims, func(a, b *victim) int { return a.next.Compare(b.next) })
		if due.left == 0 && due.Running() && !slices.ContainsFunc(c.victims, func(v *victim) bool { return v.left > 0 || !v.Running() }) {
			return
		}
		time.Sleep(time.Until(due.next))
		switch {
		case !due.Running() && due.crash == "":
			c.revive(due)
		case due.crash != "":
			c.await(due)
		case due.left > 0:
			due.Kill()
			c.died(due)
		default:
			due.next = time.Now().Add(otherLife)
		}
	}
}

// died is what follows a kill.
func (c *chaos) died(v *victim) {
	v.left--
	v.crash, v.since = "", time.Now()
	v.next = c.in(downLeast, downSpread)
}

// await looks whether the agent has passed its crash point.
func (c *chaos) await(v *victim) {
	c.t.Helper()
	if v.Crashed() {
		c.crashes = append(c.crashes, v.crash)
		c.died(v)
		return
	}
	if time.Since(v.since) > crashLimit {
		c.t.Fatalf("the agent has not passed crash point %s in %v", v.crash, crashLimit)
	}
	v.next = time.Now().Add(10 * time.Millisecond)
}

// revive starts a daemon; the agent so that it crashes somewhere, every other time.
func (c *chaos) revive(v *victim) {
	c.t.Helper()
	if v == c.agent {
		c.away += time.Since(v.since)
	}
	v.since = time.Now()
	if v == c.agent && v.left > 0 && v.left%2 == 0 {
		v.crash = c.point()
		v.StartWith("APPSWITCH_CRASH_AT=" + v.crash)
		v.next = time.Now()
		return
	}
	v.Start()
	v.next = c.in(0, v.life)
}

// point chooses a crash point: all before one comes again.
func (c *chaos) point() string {
	if len(c.points) == 0 {
		c.points = crashPoints(c.t)
	}
	i := c.random.IntN(len(c.points))
	name := c.points[i]
	c.points = slices.Delete(c.points, i, i+1)
	return fmt.Sprintf("%s:%d", name, 1+c.random.IntN(crashPasses))
}

// failures are the lines of a program of the chaos test that tell of one.
func failures(out string) []string {
	return slices.DeleteFunc(harness.Lines(out), func(line string) bool { return !strings.HasPrefix(line, "failed") })
}
