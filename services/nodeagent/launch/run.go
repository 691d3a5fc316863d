package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"appswitch.io/services/nodeagent/launch/options"
	"appswitch.io/services/nodeagent/launch/wire"
)

// plan is what preparing the calling thread for the program needs to know: the command line and what the agent, or
// the supervisor in its name, said about it.
type plan struct {
	IP         string `json:"ip"`
	ResolvConf bool   `json:"resolvConf"`
	Netns      string `json:"netns"` // the agent's network namespace, "" if the agent doesn't tell
}

// backend is who the program's system calls are handed to: the agent, or the supervisor that speaks for us. Its
// methods run on a thread of their own, which is neither filtered nor in the new namespaces.
type backend interface {
	plan() (plan, error)
	attach(handed) error
	close()
}

// handed is what the backend gets once the filter stands.
type handed struct {
	listener, journal int
	newNetns          bool // the thread is in a network namespace of its own
}

// run turns this process into the program, or returns the error that prevented it. With --init, or where only a user
// namespace gives the new network namespace, the process stays as the program's supervisor instead.
func run(o options.Run) error {
	program, err := findProgram(o.Command[0])
	if err != nil {
		return err
	}
	who, err := findUser(o.User)
	if err != nil {
		return err
	}
	if o.Init {
		return supervise(o, newAgent(o.RunDir), nil, false)
	}
	direct := newDirect(o)
	err = become(o, program, who, direct)
	if errors.Is(err, errNeedsUserNamespace) {
		// This thread is still as it was: nothing was unshared.
		return supervise(o, direct.agent, direct.welcome, true)
	}
	return err
}

// errNeedsUserNamespace: the kernel refuses a network namespace to this user.
var errNeedsUserNamespace = errors.New("a new network namespace needs privileges")

// become prepares the calling thread and replaces the process by the program.
//
// Two threads work side by side. This one changes its namespaces and installs the filter; it is the one that becomes
// the program. The other keeps the machine's view, talks to the backend and forks the holder.
func become(o options.Run, program string, who *user, b backend) error {
	runtime.LockOSThread() // never unlocked: this thread is not fit for other goroutines any more
	plans, handover, done := make(chan planned, 1), make(chan handed), make(chan error, 1)
	go talk(b, plans, handover, done)

	entered, enterErr := enterNamespaces(o)
	p := <-plans
	if p.err != nil {
		return p.err
	}
	if enterErr != nil {
		if err := stayInNamespace(o, p.plan, enterErr); err != nil {
			close(handover)
			<-done
			return err
		}
	}
	if entered.net {
		if err := configureNetwork(p.plan.IP, o.Interface); err != nil {
			return err
		}
	}
	overrideOrWarn(o, p.plan, entered.mount)

	journal, err := createJournal()
	if err != nil {
		return err
	}
	listener, err := installFilter()
	if err != nil {
		return err
	}
	handover <- handed{listener, journal, entered.net}
	if err := <-done; err != nil {
		return err
	}
	if err := who.assume(); err != nil {
		return err
	}
	return execute(program, o.Command, who.environ(os.Environ()))
}

type planned struct {
	plan plan
	err  error
}

// talk is the thread that keeps the machine's view. It ends when the listener is handed over, or when handover is
// closed because the launch ends otherwise.
func talk(b backend, plans chan<- planned, handover <-chan handed, done chan<- error) {
	runtime.LockOSThread() // the holder is forked from it with all signals blocked
	p, err := b.plan()
	plans <- planned{p, err}
	if err != nil {
		return
	}
	h, ok := <-handover
	if !ok {
		done <- nil
		return
	}
	err = b.attach(h)
	b.close()
	done <- err
}

// namespaces says which new namespaces the calling thread is in.
type namespaces struct{ net, mount bool }

// enterNamespaces moves the calling thread into new namespaces. It returns the errno if the network namespace is
// refused; a refused mount namespace is no error.
func enterNamespaces(o options.Run) (namespaces, error) {
	var entered namespaces
	if o.NewNetns {
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return entered, err
		}
		entered.net = true
	}
	if o.DNSOverride && syscall.Unshare(syscall.CLONE_NEWNS) == nil {
		entered.mount = true
	}
	return entered, nil
}

// stayInNamespace decides what a refused network namespace means. In a container, which has a network namespace of
// its own, the program stays in it.
func stayInNamespace(o options.Run, p plan, err error) error {
	if err != syscall.EPERM {
		return fmt.Errorf("make a network namespace: %w; run with --new-netns=false to do without", err)
	}
	if own, linkErr := os.Readlink(netnsLink); linkErr != nil || p.Netns == "" || own == p.Netns {
		return errNeedsUserNamespace
	}
	if o.Interface != "" {
		return fmt.Errorf("--interface %s needs a new network namespace, which this container may not make: "+
			"leave the option out or give the container CAP_SYS_ADMIN and CAP_NET_ADMIN", o.Interface)
	}
	return nil
}

const netnsLink = "/proc/self/ns/net"

// overrideOrWarn replaces what the program's name lookups would use, if that is wanted and possible. Where it isn't,
// lookups over the network still reach the agent; only a name service behind a UNIX socket escapes it, so only then
// the user is told.
func overrideOrWarn(o options.Run, p plan, mount bool) {
	if !o.DNSOverride || !p.ResolvConf {
		return
	}
	err := error(syscall.EPERM)
	if mount {
		if err = overrideNames(o.RunDir); err == nil {
			return
		}
	} else if len(openNameServices()) == 0 {
		return
	}
	complain("the program's name lookups may bypass AppSwitch: " + err.Error() +
		"; run as root, or disable nscd and systemd-resolved, or silence this with --dns-override=false")
}

// direct is the backend that talks to the agent itself and leaves a holder behind.
type direct struct {
	agent   *agent
	request wire.Hello
	welcome *wire.Welcome
}

func newDirect(o options.Run) *direct {
	return &direct{agent: newAgent(o.RunDir), request: helloFor(o)}
}

func helloFor(o options.Run) wire.Hello {
	return wire.Hello{
		Version: wire.Version, IP: o.IP, Name: o.Name, Labels: o.Labels,
		NewNetns: o.NewNetns, DNS: o.DNSOverride, Command: cutCommand(o.Command),
	}
}

func (d *direct) plan() (plan, error) {
	w, err := d.agent.hello(&d.request)
	if err != nil {
		return plan{}, err
	}
	d.welcome = w
	return planFor(w), nil
}

func planFor(w *wire.Welcome) plan {
	return plan{IP: w.IP, ResolvConf: w.ResolvConf, Netns: w.Netns}
}

func (d *direct) attach(h handed) error {
	d.request.NewNetns = h.newNetns // not what was asked for, in a container
	at := attachFor(d.welcome, d.request, os.Getpid())
	state := holderState{RunDir: d.agent.dir, Timeout: d.welcome.AgentTimeout, Attach: at}
	var forkErr error
	d.agent.meanwhile = func() { forkErr = forkHolder(state, h.listener, h.journal) }
	if err := d.agent.attach(&at, []int{h.listener, h.journal}); err != nil {
		return err
	}
	return forkErr
}

func (d *direct) close() { d.agent.close() }

func attachFor(w *wire.Welcome, h wire.Hello, pid int) wire.Attach {
	return wire.Attach{Version: wire.Version, AppID: w.AppID, Token: w.Token, PID: pid, Hello: h}
}
