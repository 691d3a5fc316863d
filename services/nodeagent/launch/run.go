package launch

import (
	"errors"
	"runtime"
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/options"
	"appswitch.io/services/nodeagent/launch/wire"
)

// backend is who the program's system calls are handed to: the agent, or the supervisor that speaks for us. Its
// methods run on a thread of their own, which is neither filtered nor in the new namespaces.
type backend interface {
	plan() (*wire.Welcome, error)
	attach(handed) error
	close()
	relinquish() error // on the program's thread, before it becomes the program
}

// handed is what the backend gets once the filter stands.
type handed struct {
	listener, journal int
	newNetns          bool // the thread is in a network namespace of its own
	udpFrom           int  // what the filter takes for descriptors of UDP sockets
}

// run turns this process into the program, or returns the error that prevented it. With --init, or where only a user
// namespace gives the new network namespace, it returns what is to be done by a parent instead. args are the command
// line's, which the parent's child reads again.
func run(o options.Run, args []string) (*Supervision, error) {
	program, err := findProgram(o.Command[0])
	if err != nil {
		return nil, err
	}
	who, err := findUser(o.User)
	if err != nil {
		return nil, err
	}
	d := newDirect(o)
	if o.Init {
		return &Supervision{args: args, direct: d, init: true}, nil
	}
	err = become(o, program, who, d)
	if errors.Is(err, errNeedsUserNamespace) {
		// This thread is still as it was: nothing was unshared.
		return &Supervision{args: args, direct: d, userNamespace: true}, nil
	}
	return nil, err
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
		if err := stayInNamespace(o, p.welcome, enterErr); err != nil {
			close(handover)
			if doneErr := <-done; doneErr != nil {
				return doneErr
			}
			return err
		}
	}
	if entered.net {
		if err := configureNetwork([]string{p.welcome.IP, p.welcome.Second}, o.Interface); err != nil {
			return err
		}
	}
	overrideOrWarn(o, p.welcome, entered.mount)

	journal, err := createJournal()
	if err != nil {
		return err
	}
	udpFrom := firstUDP()
	listener, err := installFilter(udpFrom)
	if err != nil {
		return err
	}
	handover <- handed{listener, journal, entered.net, udpFrom}
	if err := <-done; err != nil {
		return err
	}
	if err := b.relinquish(); err != nil {
		return err
	}
	if err := who.assume(); err != nil {
		return err
	}
	return execute(program, o.Command, who.environ(syscall.Environ()))
}

type planned struct {
	welcome *wire.Welcome
	err     error
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
func stayInNamespace(o options.Run, w *wire.Welcome, err error) error {
	if !errors.Is(err, syscall.EPERM) {
		return text.Because(err, "make a network namespace: ", err.Error(), "; run with --new-netns=false to do without")
	}
	var link [64]byte
	n, linkErr := syscall.Readlink(netnsLink, link[:])
	if linkErr != nil || w.Netns == "" || string(link[:n]) == w.Netns {
		return errNeedsUserNamespace
	}
	if o.Interface != "" {
		return text.Error("--interface ", o.Interface, " needs a new network namespace, which this container may not make: "+
			"leave the option out or give the container CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
	return nil
}

const netnsLink = "/proc/self/ns/net"

// overrideOrWarn replaces what the program's name lookups would use, if that is wanted and possible. Where it isn't,
// lookups over the network still reach the agent; only a name service behind a UNIX socket escapes it, so only then
// the user is told.
func overrideOrWarn(o options.Run, w *wire.Welcome, mount bool) {
	if !o.DNSOverride || !w.ResolvConf {
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
