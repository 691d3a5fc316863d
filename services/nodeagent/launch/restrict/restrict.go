// Package restrict says which settings of a machine keep programs from running under AppSwitch, most of them those by which
// distributions restrict normal users, and the command that lifts each.
//
// Invariant: it is pure, over [Facts] that the caller has gathered, so that `ax check`, `ax run` and the agent say the same
// sentence about the same machine. It imports next to nothing, because `ax run` has milliseconds to start. Start reading at
// [UserNamespace] and [Ptrace]; what the files mean is in facts.go.
package restrict

import "appswitch.io/services/nodeagent/launch/internal/text"

// Severity of a finding.
type Severity int

// The severities.
const (
	Fine     Severity = iota
	Limited           // works, but not for everything
	Hindered          // doesn't work
)

// Finding is one restriction, as a sentence without a full stop and what lifts it. A Fine one has neither.
type Finding struct {
	Severity    Severity
	Detail, Fix string
}

// Sentence is the finding for an error message.
func (f Finding) Sentence() string { return text.Join(f.Detail, "; ", f.Fix) }

const withoutNetns = ", or run as root, or do without with ax run --new-netns=false"

// UserNamespace says why a normal user can't have the user namespace from which a network namespace comes without root.
// The caller has tried: it names what stands in the way, so it never returns Fine.
func UserNamespace(f Facts) Finding {
	const cannot = ": normal users can't make user namespaces, which give them network namespaces"
	switch {
	case f.UsernsClone == "0":
		return Finding{Hindered, "kernel.unprivileged_userns_clone is 0" + cannot, "sudo sysctl -w kernel.unprivileged_userns_clone=1" + withoutNetns}
	case f.MaxUserNamespaces == "0":
		return Finding{Hindered, "user.max_user_namespaces is 0" + cannot, "sudo sysctl -w user.max_user_namespaces=15000" + withoutNetns}
	case f.MaxNetNamespaces == "0":
		return Finding{Hindered, "user.max_net_namespaces is 0: nobody can make network namespaces", "sudo sysctl -w user.max_net_namespaces=15000, or do without with ax run --new-netns=false"}
	case on(f.AppArmorUserns):
		return Finding{Hindered, text.Join("kernel.apparmor_restrict_unprivileged_userns is ", f.AppArmorUserns, ": AppArmor gives normal users user namespaces without rights in them"),
			"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or the AppArmor profile of docs/rootless.md" + withoutNetns}
	case on(f.SELinuxEnforcing):
		return Finding{Hindered, "user namespaces are refused, and SELinux is enforcing: its policy may be why", "ausearch -m avc -ts recent shows it" + withoutNetns}
	}
	return Finding{Hindered, "user namespaces, which give normal users network namespaces, are refused here: a container's seccomp profile, or a limit, may be why",
		"run outside of the container, or with a seccomp profile that allows unshare and clone" + withoutNetns}
}

// Ptrace says whether Yama lets a daemon, of root or not, read the memory of a program, which is in a user namespace of its
// own or not. The owner of a user namespace has every right in it, so Yama is no obstacle there.
func Ptrace(scope string, root, ownUserns bool) Finding {
	detail := text.Join("kernel.yama.ptrace_scope is ", scope)
	switch {
	case scope == "3":
		return Finding{Hindered, detail + ": nobody may read a program's memory, root neither",
			"echo kernel.yama.ptrace_scope=1 | sudo tee /etc/sysctl.d/99-ptrace.conf, and restart the machine (3 can't be undone while it runs)"}
	case (scope == "1" || scope == "2") && !root && !ownUserns:
		return Finding{Limited, detail + ": without root the daemon can't read the memory of programs that have no user namespace of their own (--new-netns=false)",
			"leave out --new-netns=false, or sudo sysctl -w kernel.yama.ptrace_scope=0, or run the daemon as root"}
	}
	return Finding{}
}

// Seccomp says whether system calls can be handed to a process.
func Seccomp(f Facts) Finding {
	if f.SeccompActions == "" {
		return Finding{Hindered, "seccomp is not available: the kernel can't hand system calls to a process", "use Linux 5.14 or later, built with CONFIG_SECCOMP_FILTER"}
	}
	for _, action := range text.Split(f.SeccompActions, ' ') {
		if action == "user_notif" {
			return Finding{}
		}
	}
	return Finding{Hindered, "the kernel has seccomp without user notification", "use Linux 5.14 or later, built with CONFIG_SECCOMP_FILTER"}
}

// Proc says whether /proc hides processes from the daemon.
func Proc(f Facts, root bool) Finding {
	if hidden := hidePID(f.Mounts); hidden && !root {
		return Finding{Limited, "/proc is mounted with hidepid: without root the daemon serves programs of its own user only",
			"sudo mount -o remount,hidepid=0 /proc, or run the daemon as root"}
	}
	return Finding{}
}

// on reports whether a setting is there and not off.
func on(setting string) bool { return setting != "" && setting != "0" }
