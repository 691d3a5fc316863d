package check

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"appswitch.io/services/nodeagent/launch/restrict"
	"golang.org/x/sys/unix"
)

// facts are what the machine restricts.
func (o Options) facts() restrict.Facts {
	return restrict.Gather(o.Proc, func(path string) string {
		content, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return string(content)
	})
}

// result makes one of a finding; what is fine has a detail of its own.
func result(name string, f restrict.Finding, fine string) Result {
	switch f.Severity {
	case restrict.Fine:
		return ok(name, "%s", fine)
	case restrict.Limited:
		return warning(name, f.Fix, "%s", f.Detail)
	}
	return failed(name, f.Fix, "%s", f.Detail)
}

// ptrace looks at the Yama setting, which rules over reading an application's memory.
func (o Options) ptrace(root bool) Result {
	scope := o.facts().YamaScope
	fine := "not restricted"
	if scope != "" {
		fine = "kernel.yama.ptrace_scope is " + scope
	}
	return result("ptrace scope", restrict.Ptrace(scope, root, false), fine)
}

// processes looks at what /proc hides.
func (o Options) processes(root bool) Result {
	return result("processes", restrict.Proc(o.facts(), root), "/proc hides nothing that is needed")
}

// newNetNamespace makes one, as `ax run` does for every program, on a thread that is thrown away with it. A normal user gets
// it from a user namespace.
func (o Options) newNetNamespace(root bool) Result {
	const name = "new network namespace"
	var err error
	onThread(func() { err = unix.Unshare(unix.CLONE_NEWNET) })
	switch {
	case err == nil:
		return ok(name, "can be made")
	case root:
		return failed(name, "privileged container, or --cap-add SYS_ADMIN; or ax run --new-netns=false", "%v", err)
	}
	if tryUserNamespace() {
		return ok(name, "can be made, in a user namespace")
	}
	// Without, there still is --new-netns=false.
	f := restrict.UserNamespace(o.facts())
	return warning(name, f.Fix, "%s", f.Detail)
}

// tryUserNamespace reports whether a child can have a user namespace, a network namespace in it, and the rights that set
// one up. The child has nothing to execute: that this is what fails says that all before it succeeded.
func tryUserNamespace() bool {
	cmd := exec.Command("/proc/self/fd/none")
	uid, gid := os.Geteuid(), os.Getegid()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Unshareflags: syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN},
	}
	return errors.Is(cmd.Run(), syscall.ENOENT)
}
