//go:build e2e

package e2e

// Reasons that several differences share.
const (
	asksHost   = "the socket lives in the host's network namespace, where such an option would lead past AppSwitch (docs/security.md)"
	fastOpen   = "TCP Fast Open is refused as by a kernel that has it switched off, and programs fall back to connect: data would leave before it is decided where to"
	knownEarly = "what becomes of a connect within a few milliseconds is told by connect itself, so that a refusal can be retried on another server before the program sees it"
	lateNumber = "a descriptor gets its number when the connection is there, natively when the wait begins: what is opened meanwhile changes places with it"
	otherWay   = "a way to the network past AppSwitch"
	plainTCP   = "Multipath TCP becomes plain TCP, as on a kernel without it"
)

// differences between a program's socket calls with and without AppSwitch, which docs/native.md tells users of. One that is
// no more, or is not here, fails the test.
var differences = []difference{
	{`socket_kinds: raw icmp`, "raw sockets see and forge what isn't theirs, and no application has the privilege"},
	{`socket_is: mptcp`, plainTCP},
	{`socket_no_other_way: io_uring_setup`, otherWay},
	{`socket_no_other_way: i386 .*`, otherWay},

	{`bind_privileged: port 8.*`, "privileged ports need no privilege: they are virtual"},
	{`bind_not_ours: (255.255.255.255|224.0.0.1)( by UDP)?`, "broadcast and multicast reach nobody under AppSwitch: their addresses are not the application's"},

	{`accept_shutdown/.*: listening again`, "a port that was chosen for a socket stays its own when it listens again"},
	{`accept_limit/.*: it is still there`, "a connection that found no free descriptor waits with the agent, and the next accept gets it; poll doesn't tell of it"},
	{`signal_accept/.*: with SA_RESTART`, lateNumber},
	{`nonblocking_meanwhile/.*: O_NONBLOCK set while it waits`, lateNumber},

	{`connect_nonblocking/.*: (refused|then to a listener|writable|then)`, knownEarly},
	{`epoll_connect/.*: refused`, knownEarly},
	{`options_errors/.*: read`, knownEarly},
	{`connect_fast_open/.*: .*`, fastOpen},

	{`options_of_the_host: (SO_BINDTODEVICE (lo|none|nosuch)|SO_MARK|SO_MARK 0|IP_TRANSPARENT|TCP_REPAIR)`, asksHost},
	{`options_of_the_host: SO_ORIGINAL_DST`, "nothing is redirected, so nothing has another destination (docs/programs.md)"},
	{`options_interfaces: SIOCGIFCONF`, "asked by ioctl on an internet socket, which lives in the host's network namespace; getifaddrs and netlink show the application's own"},
}

var goDifferences = []difference{
	{`go_multipath: multipath`, plainTCP},
}

var passedDifferences = []difference{
	{`pass: accept the fresh one`, "a socket connects as the application that makes the call, with its address and its labels; natively it stays on the machine where it was made"},
}
