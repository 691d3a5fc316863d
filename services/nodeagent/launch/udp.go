package launch

import "syscall"

// UDP sockets have descriptor numbers of their own, from the one that firstUDP returns on: by it the filter tells their
// messages from those of TCP sockets (package filter). It leaves the lower ones to everything else, and is below what
// select(2) can take (FD_SETSIZE, 1024).
const maxFirstUDP = 768

func firstUDP() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return maxFirstUDP
	}
	if cur, ok := inheritedFileLimit(); ok {
		limit.Cur = cur
	}
	return firstUDPOf(limit.Cur)
}

// firstUDPOf is a quarter below a program's limit of open files.
func firstUDPOf(limit uint64) int {
	return int(min(limit, 4*maxFirstUDP/3) * 3 / 4)
}

// inheritedFileLimit returns the limit of open files that this process was started with, and the program will have; Go's
// runtime has raised it for itself. Not every build knows it.
var inheritedFileLimit = func() (uint64, bool) { return 0, false }
