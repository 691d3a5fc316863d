package launch

import (
	"errors"
	"strconv"
	"syscall"
	"unsafe"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

// user is who the program runs as. A nil user is the present one.
type user struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
	home   string
}

const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
	maxGroups  = 65536 // NGROUPS_MAX
)

// findUser looks up the value of --user, a name or a number, in the local files. A number that no user has is taken
// as it is, with a group of the same number.
func findUser(who string) (*user, error) {
	if who == "" {
		return nil, nil //nolint:nilnil // a nil user is the present one
	}
	passwd, err := readFile(passwdFile)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, text.Wrap(err, "--user ", who, ": read ", passwdFile)
	}
	for _, line := range text.Split(string(passwd), '\n') {
		// name:password:uid:gid:comment:home:shell
		f := text.Split(line, ':')
		if len(f) < 7 || f[0] != who && f[2] != who {
			continue
		}
		uid, errUID := strconv.ParseUint(f[2], 10, 32)
		gid, errGID := strconv.ParseUint(f[3], 10, 32)
		if errUID != nil || errGID != nil {
			return nil, text.Error("--user ", who, ": ", passwdFile, " has a malformed line for it")
		}
		u := &user{name: f[0], uid: uint32(uid), gid: uint32(gid), home: f[5]}
		return u, u.findGroups()
	}
	uid, err := strconv.ParseUint(who, 10, 32)
	if err != nil || uid == 1<<32-1 {
		return nil, &exitError{exitUsage, text.Error("--user ", who, ": no such user in ", passwdFile)}
	}
	return &user{name: who, uid: uint32(uid), gid: uint32(uid), home: "/"}, nil
}

// findGroups collects the groups that name the user as a member.
func (u *user) findGroups() error {
	u.groups = []uint32{u.gid}
	file, err := readFile(groupFile)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return text.Wrap(err, "--user ", u.name, ": read ", groupFile)
	}
	for _, line := range text.Split(string(file), '\n') {
		// name:password:gid:member,member
		f := text.Split(line, ':')
		if len(f) < 4 {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || uint32(gid) == u.gid || len(u.groups) == maxGroups {
			continue
		}
		for _, member := range text.Split(f[3], ',') {
			if member == u.name {
				u.groups = append(u.groups, uint32(gid))
				break
			}
		}
	}
	return nil
}

// assume makes the calling thread, and no other, run as the user.
func (u *user) assume() error {
	if u == nil {
		return nil
	}
	var list uintptr
	if len(u.groups) > 0 {
		list = uintptr(unsafe.Pointer(&u.groups[0]))
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(u.groups)), list, 0)
	if errno == 0 {
		gid := uintptr(u.gid)
		_, _, errno = syscall.RawSyscall(syscall.SYS_SETRESGID, gid, gid, gid)
	}
	if errno == 0 {
		uid := uintptr(u.uid)
		_, _, errno = syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid)
	}
	switch errno {
	case 0:
		return nil
	case syscall.EPERM, syscall.EINVAL:
		return text.Because(errno, "--user ", u.name, ": ", errno.Error(), ": only root may run programs as another user")
	}
	return text.Wrap(errno, "--user ", u.name)
}

// environ is the environment with the variables that name the user.
func (u *user) environ(env []string) []string {
	if u == nil {
		return env
	}
	own := []string{"HOME=" + u.home, "USER=" + u.name, "LOGNAME=" + u.name}
	out := make([]string, 0, len(env)+len(own))
	for _, e := range env {
		key, _, _ := text.Cut(e, '=')
		if key != "HOME" && key != "USER" && key != "LOGNAME" {
			out = append(out, e)
		}
	}
	return append(out, own...)
}
