package launch

import "syscall"

// hide keeps the program, which may run as the same user, from looking into this process or taking its descriptors.
func hide() { _, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetDumpable, 0, 0, 0, 0, 0) }

// show lets the agent at the other end of a connection look into this process until hide is called again: without root's
// capabilities it could neither see whose process this is nor fetch the ring. Only this user's own agent gains by it, and
// a program that shares neither its namespaces nor its rights with us still can't.
func show(conn int) {
	agent, err := syscall.GetsockoptUcred(conn, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil || agent.Uid == 0 || int(agent.Uid) != syscall.Geteuid() {
		return
	}
	// Yama asks for the second, where it is there; elsewhere it is an error that means nothing.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetPtracer, uintptr(agent.Pid), 0, 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetDumpable, 1, 0, 0, 0, 0)
}
