//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"appswitch.io/test/e2e/harness"
)

// core is what continuous integration proves in every shape: what goes from one service to another. The rest depends on the
// shape least, and runs in each of them with `make e2e SHAPE=…`.
var core = map[string]func(*testing.T){
	"labels":          TestLabels,
	"claims":          TestClaimedAddressStaysVirtual,
	"names":           TestDig,
	"tables":          TestTables,
	"observe":         TestObserve,
	"connectivity":    TestConnectivity,
	"restart":         TestAgentRestartKeepsTheTable,
	"late listen":     TestListenWhileAgentIsDown,
	"virtual service": TestRoundRobin,
}

// TestShapes runs the core in the shapes that this run is not about.
func TestShapes(t *testing.T) {
	if os.Getenv(harness.ShapeVar) != "" {
		return // everything runs in the shape that was asked for
	}
	for _, shape := range harness.Shapes[1:] {
		for _, name := range slices.Sorted(maps.Keys(core)) {
			t.Run(string(shape)+"/"+name, func(t *testing.T) {
				t.Setenv(harness.ShapeVar, string(shape))
				core[name](t)
			})
		}
	}
}

// TestOneOfTwoKilledUnderLoad kills one of two registries, one of two routers, and the etcd behind them, each in turn under
// load, and freezes one of each. Nothing fails, and what begins to listen meanwhile is published by the other.
func TestOneOfTwoKilledUnderLoad(t *testing.T) {
	lab := harness.New(t)
	system := lab.StartShape(harness.Pairs)
	lab.GoProgram("goserver") // building it takes longer than what is measured
	underLoad(t, lab, func() {
		for i, victim := range slices.Concat(system.Parts("registryd"), system.Parts("routerd")) {
			what := fmt.Sprintf("number %d of registries and routers is dead", i+1)
			ip := fmt.Sprintf("1.1.2.%d", i+1)
			victim.Kill()
			began := time.Now()
			serve(lab, ip, "meanwhile", "")
			lab.Serving(ip+":80", 1)
			reaches(lab, "server started while "+what, ip)
			t.Logf("%s: a new server was reached after %v", what, time.Since(began).Round(time.Millisecond))
			victim.Start()
			victim.Answers()
		}
		// Hung is worse than dead: nothing tells but silence.
		hung := []*harness.Daemon{system.Parts("registryd")[0], system.Parts("routerd")[0]}
		for _, d := range hung {
			d.Freeze()
		}
		began := time.Now()
		serve(lab, "1.1.2.8", "meanwhile", "")
		reaches(lab, "server started while a registry and a router hang", "1.1.2.8")
		t.Logf("one of each hangs: a new server was reached after %v", time.Since(began).Round(time.Millisecond))
		for _, d := range hung {
			d.Thaw()
			d.Answers()
		}
		system.Etcd().Kill()
		serve(lab, "1.1.2.9", "meanwhile", "")
		time.Sleep(500 * time.Millisecond)
		system.Etcd().Start()
		lab.Serving("1.1.2.9:80", 1)
		reaches(lab, "server started while etcd was dead", "1.1.2.9")
	})
}
