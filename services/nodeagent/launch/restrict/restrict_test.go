package restrict_test

import (
	"strings"
	"testing"

	"appswitch.io/services/nodeagent/launch/restrict"
)

func check(t *testing.T, f restrict.Finding, severity restrict.Severity, detail, fix string) {
	t.Helper()
	if f.Severity != severity || !strings.HasPrefix(f.Detail, detail) || !strings.HasPrefix(f.Fix, fix) || (f.Fix == "") != (severity == restrict.Fine) {
		t.Errorf("got %+v, want severity %d, %q, %q", f, severity, detail, fix)
	}
	if severity != restrict.Fine && f.Sentence() != f.Detail+"; "+f.Fix {
		t.Errorf("sentence %q", f.Sentence())
	}
}

func TestUserNamespace(t *testing.T) {
	for _, tc := range []struct {
		name        string
		facts       restrict.Facts
		detail, fix string
	}{
		{"Debian", restrict.Facts{UsernsClone: "0", MaxUserNamespaces: "30000"}, "kernel.unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"none at all", restrict.Facts{UsernsClone: "1", MaxUserNamespaces: "0"}, "user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000"},
		{"no network namespaces", restrict.Facts{MaxUserNamespaces: "9", MaxNetNamespaces: "0"}, "user.max_net_namespaces is 0", "sudo sysctl -w user.max_net_namespaces=15000"},
		{"Ubuntu", restrict.Facts{UsernsClone: "1", MaxUserNamespaces: "9", AppArmorUserns: "1"}, "kernel.apparmor_restrict_unprivileged_userns is 1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"Ubuntu, stricter", restrict.Facts{AppArmorUserns: "2"}, "kernel.apparmor_restrict_unprivileged_userns is 2", "sudo sysctl -w kernel.apparmor"},
		{"SELinux", restrict.Facts{AppArmorUserns: "0", SELinuxEnforcing: "1"}, "user namespaces are refused, and SELinux", "ausearch"},
		{"container", restrict.Facts{UsernsClone: "1", MaxUserNamespaces: "9"}, "user namespaces, which give", "run outside"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := restrict.UserNamespace(tc.facts)
			check(t, f, restrict.Hindered, tc.detail, tc.fix)
			if !strings.Contains(f.Fix, "--new-netns=false") {
				t.Errorf("the fix leaves out that one can do without: %q", f.Fix)
			}
		})
	}
}

func TestPtrace(t *testing.T) {
	for _, tc := range []struct {
		scope        string
		root, userns bool
		severity     restrict.Severity
		fix          string
	}{
		{"", false, false, restrict.Fine, ""},
		{"0", false, false, restrict.Fine, ""},
		{"1", true, false, restrict.Fine, ""},
		{"2", true, false, restrict.Fine, ""},
		{"1", false, true, restrict.Fine, ""},
		{"2", false, true, restrict.Fine, ""},
		{"1", false, false, restrict.Limited, "leave out --new-netns=false, or sudo sysctl -w kernel.yama.ptrace_scope=0"},
		{"2", false, false, restrict.Limited, "leave out --new-netns=false, or sudo sysctl -w kernel.yama.ptrace_scope=0"},
		{"3", true, false, restrict.Hindered, "echo kernel.yama.ptrace_scope=1"},
		{"3", false, true, restrict.Hindered, "echo kernel.yama.ptrace_scope=1"},
	} {
		detail := ""
		if tc.severity != restrict.Fine {
			detail = "kernel.yama.ptrace_scope is " + tc.scope + ":"
		}
		check(t, restrict.Ptrace(tc.scope, tc.root, tc.userns), tc.severity, detail, tc.fix)
	}
}

func TestSeccomp(t *testing.T) {
	check(t, restrict.Seccomp(restrict.Facts{SeccompActions: "kill_process kill_thread trap errno user_notif trace log allow"}), restrict.Fine, "", "")
	check(t, restrict.Seccomp(restrict.Facts{SeccompActions: "kill_thread trap errno trace allow"}), restrict.Hindered, "the kernel has seccomp without", "use Linux 5.14")
	check(t, restrict.Seccomp(restrict.Facts{}), restrict.Hindered, "seccomp is not available", "use Linux 5.14")
}

func TestProc(t *testing.T) {
	const plain, hidden = "proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n", "proc /proc proc rw,relatime,hidepid=invisible 0 0\n"
	for _, tc := range []struct {
		mounts   string
		root     bool
		severity restrict.Severity
	}{
		{plain, false, restrict.Fine},
		{hidden, false, restrict.Limited},
		{hidden, true, restrict.Fine},
		{"proc /proc proc rw,hidepid=2 0 0", false, restrict.Limited},
		{"proc /proc proc rw,hidepid=0 0 0", false, restrict.Fine},
		{plain + hidden, false, restrict.Limited},
		{hidden + plain, false, restrict.Fine},
		{"proc /chroot/proc proc rw,hidepid=2 0 0", false, restrict.Fine},
		{"", false, restrict.Fine},
		{"x\ny /proc", false, restrict.Fine},
	} {
		detail, fix := "", ""
		if tc.severity != restrict.Fine {
			detail, fix = "/proc is mounted with hidepid", "sudo mount -o remount,hidepid=0 /proc"
		}
		check(t, restrict.Proc(restrict.Facts{Mounts: tc.mounts}, tc.root), tc.severity, detail, fix)
	}
}

func TestGather(t *testing.T) {
	files := map[string]string{
		"/p/sys/kernel/unprivileged_userns_clone": "0\n", "/p/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
		"/p/sys/user/max_user_namespaces": "2\n", "/p/sys/user/max_net_namespaces": "3\n", "/sys/fs/selinux/enforce": "4",
		"/p/sys/kernel/yama/ptrace_scope": "5\n", "/p/sys/kernel/seccomp/actions_avail": "6 7\n", "/p/self/mounts": "8\n",
	}
	got := restrict.Gather("/p", func(path string) string { return files[path] })
	want := restrict.Facts{
		UsernsClone: "0", AppArmorUserns: "1", MaxUserNamespaces: "2", MaxNetNamespaces: "3", SELinuxEnforcing: "4",
		YamaScope: "5", SeccompActions: "6 7", Mounts: "8",
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
