package filter_test

import (
	"testing"

	"appswitch.io/services/nodeagent/launch/filter"
)

const (
	x86, i386  = 0xc000003e, 0x40000003
	arm64, arm = 0xc00000b7, 0x40000028
)

// Verdicts by name.
const (
	allow        = filter.RetAllow
	notify       = filter.RetNotify
	perm         = 0x00050000 | 1
	noSys        = 0x00050000 | 38
	noDev        = 0x00050000 | 19
	notSupported = 0x00050000 | 97
	noProtoOpt   = 0x00050000 | 92
)

// data is struct seccomp_data.
type data struct {
	nr   uint32
	arch uint32
	args [6]uint64
}

// word reads what a BPF load at an offset yields.
func (d data) word(t *testing.T, offset uint32) uint32 {
	t.Helper()
	switch {
	case offset == 0:
		return d.nr
	case offset == 4:
		return d.arch
	case offset >= 16 && offset < 64 && offset%4 == 0:
		arg := d.args[(offset-16)/8]
		if offset%8 == 4 {
			return uint32(arg >> 32)
		}
		return uint32(arg)
	}
	t.Fatalf("load at offset %d", offset)
	return 0
}

// interpret runs a program as the kernel does, and counts its steps.
func interpret(t *testing.T, program []filter.Instruction, d data) (verdict uint32, steps int) {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		steps++
		in := program[pc]
		yes := false
		switch in.Code {
		case 0x20:
			a = d.word(t, in.K)
			continue
		case 0x06:
			return in.K, steps
		case 0x15:
			yes = a == in.K
		case 0x35:
			yes = a >= in.K
		case 0x45:
			yes = a&in.K != 0
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.Code)
		}
		if yes {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	t.Fatal("the program ran past its end")
	return 0, 0
}

func program(t *testing.T, goarch string) []filter.Instruction {
	t.Helper()
	p, err := filter.Program(goarch, udpFrom)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type call struct {
	name    string
	amd64   int // number, -1 where there is none
	arm64   int
	args    [6]uint64
	verdict uint32
}

const udpFrom = 768 // the first number of UDP sockets

const fastOpen = 0x20000000 // MSG_FASTOPEN

const high = 1 << 32 // the upper half of a register

var calls = []call{
	{"read", 0, 63, [6]uint64{}, allow},
	{"write", 1, 64, [6]uint64{}, allow},
	{"close", 3, 57, [6]uint64{}, allow},
	{"poll, ppoll", 7, 73, [6]uint64{}, allow},
	{"sendfile", 40, 71, [6]uint64{}, allow},
	{"shutdown", 48, 210, [6]uint64{}, allow},
	{"socketpair", 53, 199, [6]uint64{1}, allow},
	{"getsockopt", 55, 209, [6]uint64{0, 1, 25}, allow},
	{"execve", 59, 221, [6]uint64{}, allow},
	{"epoll_wait, epoll_pwait", 232, 22, [6]uint64{}, allow},
	{"seccomp", 317, 277, [6]uint64{}, allow},
	{"clone3", 435, 435, [6]uint64{}, allow},
	{"highest", 0x3fffffff, 0x3fffffff, [6]uint64{}, allow},

	{"socket AF_UNSPEC", 41, 198, [6]uint64{0}, allow},
	{"socket AF_UNIX", 41, 198, [6]uint64{1}, allow},
	{"socket AF_INET", 41, 198, [6]uint64{2}, notify},
	{"socket AF_INET, upper half", 41, 198, [6]uint64{high | 2}, notify},
	{"socket AF_INET6", 41, 198, [6]uint64{10}, notify},
	{"socket AF_NETLINK", 41, 198, [6]uint64{16}, allow},
	{"socket AF_PACKET", 41, 198, [6]uint64{17}, perm},
	{"socket AF_RDS", 41, 198, [6]uint64{21}, notSupported},
	{"socket AF_TIPC", 41, 198, [6]uint64{30}, notSupported},
	{"socket AF_ALG", 41, 198, [6]uint64{38}, allow},
	{"socket AF_VSOCK", 41, 198, [6]uint64{40}, allow},
	{"socket AF_KCM", 41, 198, [6]uint64{41}, notSupported},
	{"socket AF_SMC", 41, 198, [6]uint64{43}, notSupported},
	{"socket AF_XDP", 41, 198, [6]uint64{44}, notSupported},

	{"connect", 42, 203, [6]uint64{}, notify},
	{"accept", 43, 202, [6]uint64{}, notify},
	{"bind", 49, 200, [6]uint64{}, notify},
	{"listen", 50, 201, [6]uint64{}, notify},
	{"getsockname", 51, 204, [6]uint64{}, notify},
	{"getpeername", 52, 205, [6]uint64{}, notify},
	{"accept4", 288, 242, [6]uint64{}, notify},

	{"send", 44, 206, [6]uint64{3, 4, 5, 0, 0, 16}, allow},
	{"sendto", 44, 206, [6]uint64{3, 4, 5, 0, 1, 16}, notify},
	{"sendto, upper half", 44, 206, [6]uint64{3, 4, 5, 0, high, 16}, notify},
	{"recv", 45, 207, [6]uint64{3, 4, 5, 0, 0, 1}, allow},
	{"recvfrom", 45, 207, [6]uint64{3, 4, 5, 0, 8}, notify},
	{"recvfrom, upper half", 45, 207, [6]uint64{3, 4, 5, 0, high << 31}, notify},
	{"sendmsg", 46, 211, [6]uint64{udpFrom - 1, 1, 0x4000}, allow},
	{"sendmsg, UDP", 46, 211, [6]uint64{udpFrom, 1, 0x4000}, notify},
	{"sendmsg, upper half", 46, 211, [6]uint64{high | 5}, allow},
	{"sendmsg, UDP, upper half", 46, 211, [6]uint64{high | udpFrom + 9}, notify},
	{"sendmsg, negative", 46, 211, [6]uint64{0xffffffff}, notify},
	{"sendmsg, fast open", 46, 211, [6]uint64{5, 1, fastOpen}, notify},
	{"sendmsg, fast open among flags", 46, 211, [6]uint64{5, 1, fastOpen | 0x4000}, notify},
	{"recvmsg", 47, 212, [6]uint64{5, 1, fastOpen}, allow},
	{"recvmsg, UDP", 47, 212, [6]uint64{udpFrom + 1}, notify},
	{"recvmmsg", 299, 243, [6]uint64{5}, allow},
	{"recvmmsg, UDP", 299, 243, [6]uint64{udpFrom}, notify},
	{"sendmmsg", 307, 269, [6]uint64{5, 1, fastOpen, 0}, allow},
	{"sendmmsg, UDP", 307, 269, [6]uint64{udpFrom}, notify},
	{"sendmmsg, fast open", 307, 269, [6]uint64{5, 1, 1, fastOpen}, notify},
	{"dup", 32, 23, [6]uint64{5}, allow},
	{"dup, UDP", 32, 23, [6]uint64{udpFrom}, notify},
	{"F_DUPFD", 72, 25, [6]uint64{5, 0, udpFrom}, allow},
	{"F_DUPFD, UDP", 72, 25, [6]uint64{udpFrom, 0, 3}, notify},
	{"F_DUPFD_CLOEXEC, UDP", 72, 25, [6]uint64{udpFrom, 1030, 3}, notify},
	{"F_GETFL, UDP", 72, 25, [6]uint64{udpFrom, 3}, allow},
	{"dup2, UDP", 33, 24, [6]uint64{udpFrom, 0}, allow},

	{"SO_REUSEADDR", 54, 208, [6]uint64{3, 1, 2}, allow},
	{"SO_BINDTODEVICE", 54, 208, [6]uint64{3, 1, 25}, perm},
	{"SO_BINDTODEVICE, upper halves", 54, 208, [6]uint64{3, high | 1, high | 25}, perm},
	{"SO_MARK", 54, 208, [6]uint64{3, 1, 36}, perm},
	{"SO_BINDTOIFINDEX", 54, 208, [6]uint64{3, 1, 62}, perm},
	{"IP_TOS", 54, 208, [6]uint64{3, 0, 1}, allow},
	{"IP_TRANSPARENT", 54, 208, [6]uint64{3, 0, 19}, perm},
	{"IPV6_V6ONLY", 54, 208, [6]uint64{3, 41, 26}, allow},
	{"IPV6_TRANSPARENT", 54, 208, [6]uint64{3, 41, 75}, perm},
	{"IP_ADD_MEMBERSHIP", 54, 208, [6]uint64{3, 0, 35}, noDev},
	{"IP_DROP_MEMBERSHIP", 54, 208, [6]uint64{3, 0, 36}, allow},
	{"IP_ADD_SOURCE_MEMBERSHIP", 54, 208, [6]uint64{3, 0, 39}, noDev},
	{"MCAST_JOIN_GROUP", 54, 208, [6]uint64{3, 0, 42}, noDev},
	{"MCAST_JOIN_GROUP, IPv6", 54, 208, [6]uint64{3, 41, 42}, noDev},
	{"IPV6_ADD_MEMBERSHIP", 54, 208, [6]uint64{3, 41, 20}, noDev},
	{"TCP_NODELAY", 54, 208, [6]uint64{3, 6, 1}, allow},
	{"TCP_REPAIR", 54, 208, [6]uint64{3, 6, 19}, perm},
	{"option 19 of SOL_SOCKET", 54, 208, [6]uint64{3, 1, 19}, allow},
	{"option 25 of UDP", 54, 208, [6]uint64{3, 17, 25}, allow},

	{"SO_ERROR", 55, 209, [6]uint64{3, 1, 4}, allow},
	{"SO_PEERNAME", 55, 209, [6]uint64{3, 1, 28}, noProtoOpt},
	{"SO_ORIGINAL_DST", 55, 209, [6]uint64{3, 0, 80}, noProtoOpt},
	{"SO_ORIGINAL_DST, upper halves", 55, 209, [6]uint64{3, high, high | 80}, noProtoOpt},
	{"IP6T_SO_ORIGINAL_DST", 55, 209, [6]uint64{3, 41, 80}, noProtoOpt},
	{"get IPV6_V6ONLY", 55, 209, [6]uint64{3, 41, 26}, notify},
	{"get IPV6_RECVERR", 55, 209, [6]uint64{3, 41, 25}, allow},
	{"get IP option 26", 55, 209, [6]uint64{3, 0, 26}, allow},
	{"TCP_INFO", 55, 209, [6]uint64{3, 6, 11}, allow},

	{"io_uring_setup", 425, 425, [6]uint64{}, noSys},
	{"io_uring_enter", 426, 426, [6]uint64{}, noSys},
	{"io_uring_register", 427, 427, [6]uint64{}, noSys},
}

func TestNativeCalls(t *testing.T) {
	for _, c := range calls {
		if got, _ := interpret(t, program(t, "amd64"), data{uint32(c.amd64), x86, c.args}); got != c.verdict {
			t.Errorf("amd64 %s: %#x, want %#x", c.name, got, c.verdict)
		}
		if got, _ := interpret(t, program(t, "arm64"), data{uint32(c.arm64), arm64, c.args}); got != c.verdict {
			t.Errorf("arm64 %s: %#x, want %#x", c.name, got, c.verdict)
		}
	}
}

func TestX32(t *testing.T) {
	for _, nr := range []uint32{0x40000000, 0x40000000 + 42, 0x40000000 + 519, 0xffffffff} {
		if got, _ := interpret(t, program(t, "amd64"), data{nr: nr, arch: x86}); got != noSys {
			t.Errorf("x32 call %#x: %#x", nr, got)
		}
	}
}

func TestForeignCalls(t *testing.T) {
	for _, tt := range []struct {
		goarch  string
		arch    uint32
		refused []uint32
		allowed []uint32
	}{
		{
			"amd64", i386,
			[]uint32{102, 337, 345, 359, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371, 372, 417, 425, 426, 427},
			// exit, read, execve, 41 and 42 (dup, pipe), socketpair, shutdown
			[]uint32{1, 3, 11, 41, 42, 360, 373, 0x40000000},
		},
		{
			"arm64", arm,
			[]uint32{102, 281, 282, 283, 284, 285, 286, 287, 290, 292, 294, 295, 296, 297, 365, 366, 374, 417, 425, 426, 427},
			// exit, read, execve, socketpair, send, recv, shutdown
			[]uint32{1, 3, 11, 198, 203, 288, 289, 291, 293},
		},
	} {
		p := program(t, tt.goarch)
		for _, nr := range tt.refused {
			if got, _ := interpret(t, p, data{nr: nr, arch: tt.arch}); got != noSys {
				t.Errorf("%s, foreign call %d: %#x", tt.goarch, nr, got)
			}
		}
		for _, nr := range tt.allowed {
			if got, _ := interpret(t, p, data{nr: nr, arch: tt.arch}); got != allow {
				t.Errorf("%s, foreign call %d: %#x", tt.goarch, nr, got)
			}
		}
	}
	// An ABI that the architecture doesn't have.
	for goarch, arch := range map[string]uint32{"amd64": arm64, "arm64": x86} {
		if got, _ := interpret(t, program(t, goarch), data{nr: 0, arch: arch}); got != noSys {
			t.Errorf("%s, other ABI: %#x", goarch, got)
		}
	}
}

// TestShape checks what the kernel demands of a program, and that frequent calls pass in few steps.
func TestShape(t *testing.T) {
	for goarch, arch := range map[string]uint32{"amd64": x86, "arm64": arm64} {
		p := program(t, goarch)
		if len(p) > 255 {
			t.Errorf("%s: %d instructions", goarch, len(p))
		}
		for pc, in := range p {
			if in.Code != 0x06 && in.Code != 0x20 && pc+1+int(max(in.Jt, in.Jf)) >= len(p) {
				t.Errorf("%s: instruction %d jumps past the end", goarch, pc)
			}
		}
		for nr := range uint32(512) {
			if _, steps := interpret(t, p, data{nr: nr, arch: arch}); steps > 20 {
				t.Errorf("%s: call %d takes %d steps", goarch, nr, steps)
			}
		}
	}
	if _, err := filter.Program("riscv64", udpFrom); err == nil {
		t.Error("a program for an architecture without tables")
	}
}
