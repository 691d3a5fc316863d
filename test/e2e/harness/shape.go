package harness

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Shape is how AppSwitch is divided into processes on the laboratory's machine. What a test proves has to hold in all of
// them: [Lab.StartDaemon] starts the one that [ShapeVar] names.
type Shape string

// The shapes.
const (
	OneProcess Shape = "daemon"    // `ax daemon`
	Processes  Shape = "processes" // one of each of the five services
	Pairs      Shape = "pairs"     // two registries before an etcd of Debian's, two routers, one of each of the others
)

// ShapeVar is the variable that chooses the shape; empty is OneProcess.
const ShapeVar = "E2E_SHAPE"

// Shapes are all shapes.
var Shapes = []Shape{OneProcess, Processes, Pairs}

// CurrentShape returns the shape that the environment asks for.
func (l *Lab) CurrentShape() Shape {
	l.t.Helper()
	s := Shape(os.Getenv(ShapeVar))
	if s == "" {
		return OneProcess
	}
	if !slices.Contains(Shapes, s) {
		l.t.Fatalf("%s=%s: want one of %v", ShapeVar, s, Shapes)
	}
	return s
}

// System is AppSwitch on the laboratory's machine, in whatever shape.
type System struct {
	lab   *Lab
	parts []*Daemon // in the order of starting
	etcd  *Daemon   // of Pairs; it is no part of AppSwitch
}

// The two of each that Pairs has: where they serve, and their metrics.
var (
	registryAddrs, registryDebug = []string{"127.0.0.1:6665", "127.0.0.1:6765"}, []string{"127.0.0.1:6666", "127.0.0.1:6766"}
	routerAddrs, routerDebug     = []string{"127.0.0.1:6670", "127.0.0.1:6770"}, []string{"127.0.0.1:6671", "127.0.0.1:6771"}
)

// etcdAddr is where the etcd of Pairs serves, on the port that it has everywhere.
const etcdAddr = "127.0.0.1:2379"

// StartShape starts AppSwitch in a shape and waits until it is ready. The flags are those of `ax daemon`: where it is
// several processes each takes its own of them, as variables of one environment. It ends with the laboratory.
func (l *Lab) StartShape(shape Shape, flags ...string) *System {
	l.t.Helper()
	s := &System{lab: l}
	switch shape {
	case OneProcess:
		s.parts = []*Daemon{l.axDaemon(flags...)}
	case Processes:
		s.parts = append([]*Daemon{l.registry(0, l.registryFlags()...), l.router(0)}, l.others()...)
	case Pairs:
		s.etcd = l.startEtcd()
		external := []string{"--etcd-endpoints", etcdAddr}
		s.parts = append([]*Daemon{l.registry(0, external...), l.registry(1, external...), l.router(0), l.router(1)}, l.others()...)
	}
	if shape != OneProcess {
		for _, d := range s.parts {
			d.environ = variables(l, flags)
			if shape == Pairs {
				d.environ = append(d.environ, "AX_REGISTRY_ADDR="+strings.Join(registryAddrs, ","), "AX_ROUTER_ADDR="+strings.Join(routerAddrs, ","))
			}
		}
	}
	s.Start()
	l.Ready()
	return s
}

func (l *Lab) registry(i int, flags ...string) *Daemon {
	return l.daemon("http://"+registryDebug[i], append([]string{"registryd", "--listen", registryAddrs[i], "--metrics-listen", registryDebug[i]}, flags...)...)
}

func (l *Lab) router(i int) *Daemon {
	return l.daemon("http://"+routerDebug[i], "routerd", "--listen", routerAddrs[i], "--metrics-listen", routerDebug[i])
}

// others are the services of which every shape has one.
func (l *Lab) others() []*Daemon {
	return []*Daemon{
		l.daemon("http://127.0.0.1:6676", append([]string{"resolverd"}, resolverFlags()...)...),
		l.daemon("http://127.0.0.1:6681", append([]string{"nodeagentd", "--dns-addr", "127.0.0.1:53"}, l.agentFlags()...)...),
		l.daemon("http://127.0.0.1:6686", "gatewayd"),
	}
}

// startEtcd starts an etcd that knows nothing of AppSwitch. It outlives every part of the system.
func (l *Lab) startEtcd() *Daemon {
	l.t.Helper()
	const peer = "http://127.0.0.1:2380"
	d := l.daemon("http://"+etcdAddr, l.Need("etcd"), "--data-dir", l.Path("etcd"),
		"--listen-client-urls", "http://"+etcdAddr, "--advertise-client-urls", "http://"+etcdAddr,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	d.foreign = true
	d.Start()
	return d
}

// Etcd returns the etcd of Pairs, which Start, Kill and Stop leave alone.
func (s *System) Etcd() *Daemon { return s.etcd }

// variables writes flags as the variables that stand for them.
func variables(l *Lab, flags []string) []string {
	l.t.Helper()
	out := map[string]string{}
	for i := 0; i < len(flags); i++ {
		name, ok := strings.CutPrefix(flags[i], "--")
		name, value, has := strings.Cut(name, "=")
		if !ok {
			l.t.Fatalf("daemon flag %q: want --NAME VALUE", flags[i])
		}
		if !has {
			value = "true"
			if i+1 < len(flags) && !strings.HasPrefix(flags[i+1], "--") {
				i++
				value = flags[i]
			}
		}
		out["AX_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = value
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(out)) {
		env = append(env, name+"="+out[name])
	}
	return env
}

// Parts returns the parts whose program has a name, such as registryd.
func (s *System) Parts(name string) []*Daemon {
	s.lab.t.Helper()
	found := slices.DeleteFunc(slices.Clone(s.parts), func(d *Daemon) bool { return d.name() != name })
	if len(found) == 0 {
		s.lab.t.Fatalf("no part of the system is %s", name)
	}
	return found
}

// Part returns the only part whose program has a name.
func (s *System) Part(name string) *Daemon {
	s.lab.t.Helper()
	found := s.Parts(name)
	if len(found) != 1 {
		s.lab.t.Fatalf("%d parts of the system are %s", len(found), name)
	}
	return found[0]
}

// Start starts all parts, without waiting until they are ready.
func (s *System) Start() {
	s.lab.t.Helper()
	for _, d := range s.parts {
		d.Start()
	}
}

// Kill ends all parts as a crash does, all at once.
func (s *System) Kill() {
	s.lab.t.Helper()
	for _, d := range s.parts {
		d.kill()
	}
	for _, d := range s.parts {
		d.Kill()
	}
}

// Stop asks all parts to end, the last one first, which must succeed in time.
func (s *System) Stop() {
	s.lab.t.Helper()
	for _, d := range slices.Backward(s.parts) {
		d.Stop()
	}
}

// Log is what all parts wrote since they were last started.
func (s *System) Log() string {
	var out strings.Builder
	for _, d := range s.parts {
		out.WriteString(d.Log())
	}
	return out.String()
}

// Usage counts what all parts hold on to now.
func (s *System) Usage() (Usage, error) {
	var sum Usage
	for _, d := range s.parts {
		u, err := d.Usage()
		if err != nil {
			return Usage{}, fmt.Errorf("%s: %w", d.name(), err)
		}
		sum.Descriptors += u.Descriptors
		sum.Goroutines += u.Goroutines
	}
	return sum, nil
}
