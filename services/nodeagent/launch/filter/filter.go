// Package filter builds the seccomp program that decides, inside the kernel, which of an application's system calls
// the node agent gets to see.
//
// It is pure: tables in, instructions out, the same on every machine. Invariant: whatever the tables don't name is
// allowed, whatever could reach the network past the agent is notified or refused, and no decision looks at memory
// (BPF can't), only at registers. Start reading at [Program]; calls.go holds the tables.
package filter

import "appswitch.io/services/nodeagent/launch/internal/text"

// Instruction is one classic BPF instruction, laid out as the kernel's struct sock_filter.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// The few operations of classic BPF that the program uses (linux/bpf_common.h).
const (
	opLoad    = 0x20 // A = 32 bits of struct seccomp_data at K
	opEqual   = 0x15 // jump on A == K
	opAtLeast = 0x35 // jump on A >= K, unsigned
	opAnyBit  = 0x45 // jump on A & K != 0
	opReturn  = 0x06
)

// What the kernel does with a call (linux/seccomp.h).
const (
	RetAllow  = 0x7fff0000
	RetNotify = 0x7fc00000
	retErrno  = 0x00050000
)

// The errors with which calls are refused.
const (
	ErrnoPerm        = 1  // EPERM
	ErrnoNoDev       = 19 // ENODEV
	ErrnoNoSys       = 38 // ENOSYS
	ErrnoNoProtoOpt  = 92 // ENOPROTOOPT
	ErrnoAFNoSupport = 97 // EAFNOSUPPORT
)

// RetErrno makes the call fail with an error.
func RetErrno(errno uint32) uint32 { return retErrno | errno }

// Offsets in struct seccomp_data. Both architectures are little-endian.
const (
	offNr   = 0
	offArch = 4
)

func offLow(arg uint32) uint32  { return 16 + 8*arg }
func offHigh(arg uint32) uint32 { return 16 + 8*arg + 4 }

// Where the branches of the program end; labels of verdicts and of checks that look at arguments.
type label int

const (
	toAllow label = iota
	toNotify
	toPerm
	toNoSys
	toNoProtoOpt
	toNoDev
	toAFNoSupport
	toSocket     // by address family
	toAddress    // notify if the fifth argument, an address, is given
	toSetsockopt // by level and name
	toSockLevel
	toIPLevel
	toIPv6Level
	toTCPLevel
	toGetsockopt // by level and name
	toGetSockLevel
	toGetIPLevel
	toGetIPv6Level
	toUDP      // notify if the first argument, a descriptor, is one of the numbers of UDP sockets
	toSendmsg  // the same, but TCP Fast Open, which connects, is notified on any
	toSendmmsg // the same, with the flags in another place
	toFcntl    // by command: a duplicate of a UDP socket gets such a number, too
	fixedLabels
)

// fastOpen is MSG_FASTOPEN.
const fastOpen = 0x20000000

// Program returns the filter for an architecture, named as GOARCH does. UDP sockets have descriptors from the number udpFrom
// on: the calls of the sendmsg family carry their addresses in memory, and only the number tells whether they matter. Over
// TCP they don't, so that programs which use them there are not made to wait.
func Program(goarch string, udpFrom uint32) ([]Instruction, error) {
	m, ok := machines[goarch]
	if !ok {
		return nil, text.Error("no system call filter for ", goarch, ": amd64 and arm64 have one")
	}
	a := assembler{at: make(map[label]int), next: fixedLabels}
	native, foreign, dispatch := a.label(), a.label(), a.label()

	a.load(offArch)
	a.jump(opEqual, m.audit, native, a.after())
	a.jump(opEqual, m.foreignAudit, foreign, toNoSys)
	a.mark(native)
	a.load(offNr)
	if m.x32 != 0 {
		a.jump(opAtLeast, m.x32, toNoSys, dispatch)
	}
	a.mark(dispatch)
	a.search(m.calls)
	a.mark(foreign)
	a.load(offNr)
	a.search(m.foreignCalls)
	a.checks(udpFrom)
	return a.link()
}

// checks emits what the leaves of the search jump to.
func (a *assembler) checks(udpFrom uint32) {
	a.mark(toSocket) // an int: the kernel, too, ignores the upper half of the register
	a.load(offLow(0))
	a.choose(families, toAllow)

	a.mark(toAddress)
	second := a.label()
	a.load(offLow(4))
	a.jump(opEqual, 0, second, toNotify)
	a.mark(second)
	a.load(offHigh(4))
	a.jump(opEqual, 0, toAllow, toNotify)

	a.options(toSetsockopt, levels, toSockLevel, toIPLevel, toIPv6Level, toTCPLevel)
	a.options(toGetsockopt, readLevels, toGetSockLevel, toGetIPLevel, toGetIPv6Level)

	plain := a.label()
	a.mark(toSendmsg)
	a.load(offLow(2))
	a.jump(opAnyBit, fastOpen, toNotify, plain)
	a.mark(toSendmmsg)
	a.load(offLow(3))
	a.jump(opAnyBit, fastOpen, toNotify, plain)
	a.mark(toFcntl)
	a.load(offLow(1))
	a.choose(duplications, toAllow)
	a.mark(plain)
	a.mark(toUDP) // a negative descriptor is a big number: the agent refuses it as the kernel does
	a.load(offLow(0))
	a.jump(opAtLeast, udpFrom, toNotify, toAllow)

	for _, v := range []struct {
		at  label
		ret uint32
	}{
		{toAllow, RetAllow},
		{toNotify, RetNotify},
		{toPerm, RetErrno(ErrnoPerm)},
		{toNoSys, RetErrno(ErrnoNoSys)},
		{toNoDev, RetErrno(ErrnoNoDev)},
		{toNoProtoOpt, RetErrno(ErrnoNoProtoOpt)},
		{toAFNoSupport, RetErrno(ErrnoAFNoSupport)},
	} {
		a.mark(v.at)
		a.code = append(a.code, instruction{op: opReturn, k: v.ret})
	}
}

// options emits the check of an option's level, and of its name at each of them.
func (a *assembler) options(at label, levels []rule, each ...label) {
	a.mark(at)
	a.load(offLow(1))
	a.choose(levels, toAllow)
	for _, level := range each {
		a.mark(level)
		a.load(offLow(2))
		a.choose(forbiddenOptions[level], toAllow)
	}
}
