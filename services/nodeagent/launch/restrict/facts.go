package restrict

import "appswitch.io/services/nodeagent/launch/internal/text"

// Facts are the contents of the files that matter, without white space at their ends; "" is a file that isn't there.
type Facts struct {
	UsernsClone       string // /proc/sys/kernel/unprivileged_userns_clone: Debian
	AppArmorUserns    string // /proc/sys/kernel/apparmor_restrict_unprivileged_userns: Ubuntu
	MaxUserNamespaces string // /proc/sys/user/max_user_namespaces
	MaxNetNamespaces  string // /proc/sys/user/max_net_namespaces
	SELinuxEnforcing  string // /sys/fs/selinux/enforce
	YamaScope         string // /proc/sys/kernel/yama/ptrace_scope
	SeccompActions    string // /proc/sys/kernel/seccomp/actions_avail
	Mounts            string // /proc/self/mounts
}

// Gather reads the facts with a function that returns a file's content, "" if there is none. proc is where the proc file
// system is.
func Gather(proc string, read func(path string) string) Facts {
	sysctl := func(name string) string { return text.Trim(read(text.Join(proc, "/sys/", name))) }
	return Facts{
		UsernsClone:       sysctl("kernel/unprivileged_userns_clone"),
		AppArmorUserns:    sysctl("kernel/apparmor_restrict_unprivileged_userns"),
		MaxUserNamespaces: sysctl("user/max_user_namespaces"),
		MaxNetNamespaces:  sysctl("user/max_net_namespaces"),
		SELinuxEnforcing:  text.Trim(read("/sys/fs/selinux/enforce")),
		YamaScope:         sysctl("kernel/yama/ptrace_scope"),
		SeccompActions:    sysctl("kernel/seccomp/actions_avail"),
		Mounts:            text.Trim(read(text.Join(proc, "/self/mounts"))),
	}
}

// hidePID reports whether the proc file system at /proc hides the processes of others, by number or by name.
func hidePID(mounts string) bool {
	hidden := false
	for _, line := range text.Split(mounts, '\n') {
		// device, mount point, type, options, and two numbers; a later mount covers an earlier one
		f := text.Split(line, ' ')
		if len(f) < 4 || f[1] != "/proc" || f[2] != "proc" {
			continue
		}
		hidden = false
		for _, option := range text.Split(f[3], ',') {
			if name, value, _ := text.Cut(option, '='); name == "hidepid" && value != "0" && value != "off" {
				hidden = true
			}
		}
	}
	return hidden
}
