//go:build e2e

package e2e

import "appswitch.io/test/e2e/conformance"

// Reasons that several differences share.
const (
	asksHost   = "the socket lives in the host's network namespace, where such an option would lead past AppSwitch (docs/security.md)"
	fastOpen   = "TCP Fast Open is refused as by a kernel that has it switched off, and programs fall back to connect: data would leave before it is decided where to"
	knownEarly = "what becomes of a connect within a few milliseconds is told by connect itself, so that a refusal can be retried on another server before the program sees it"
	lateNumber = "a descriptor gets its number when the connection is there, natively when the wait begins: what is opened meanwhile changes places with it"
	otherWay   = "a way to the network past AppSwitch"
	ownNumbers = "UDP sockets have descriptor numbers of their own, by which the filter knows them: the calls of the sendmsg family are stopped on these alone (docs/udp.md)"
	plainTCP   = "Multipath TCP becomes plain TCP, as on a kernel without it"
)

// differences between a program's socket calls with and without AppSwitch, which docs/native.md tells users of. One that is
// no more, or is not here, fails the test.
var differences = []conformance.Difference{
	{Step: `socket_kinds: raw icmp`, Reason: "raw sockets see and forge what isn't theirs, and no application has the privilege"},
	{Step: `socket_kinds: (6 )?dgram( udp)?`, Reason: ownNumbers},
	{Step: `socket_is: mptcp`, Reason: plainTCP},
	{Step: `socket_no_other_way: io_uring_setup`, Reason: otherWay},

	{Step: `bind_privileged: port 8.*`, Reason: "privileged ports need no privilege: they are virtual"},
	{Step: `bind_not_ours: (255.255.255.255|224.0.0.1)( by UDP)?`, Reason: "broadcast and multicast reach nobody under AppSwitch: their addresses are not the application's"},

	{Step: `accept_shutdown/.*: listening again`, Reason: "a port that was chosen for a socket stays its own when it listens again"},
	{Step: `accept_limit/.*: it is still there`, Reason: "a connection that found no free descriptor waits with the agent, and the next accept gets it; poll doesn't tell of it"},
	{Step: `signal_accept/.*: with SA_RESTART`, Reason: lateNumber},
	{Step: `nonblocking_meanwhile/.*: O_NONBLOCK set while it waits`, Reason: lateNumber},

	{Step: `connect_nonblocking/.*: (refused|then to a listener|writable|then)`, Reason: knownEarly},
	{Step: `epoll_connect/.*: refused`, Reason: knownEarly},
	{Step: `options_errors/.*: read`, Reason: knownEarly},
	{Step: `connect_fast_open/.*: .*`, Reason: fastOpen},

	{Step: `options_of_the_host: (SO_BINDTODEVICE (lo|none|nosuch)|SO_MARK|SO_MARK 0|IP_TRANSPARENT|TCP_REPAIR)`, Reason: asksHost},
	{Step: `options_of_the_host: (IP_(ADD|DROP)_MEMBERSHIP.*|twice|no group)`, Reason: "groups of multicast would be the host's"},
	{Step: `options_of_the_host: SO_ORIGINAL_DST`, Reason: "nothing is redirected, so nothing has another destination (docs/programs.md)"},
	{Step: `options_interfaces: SIOCGIFCONF`, Reason: "asked by ioctl on an internet socket, which lives in the host's network namespace; getifaddrs and netlink show the application's own"},
}

// foreignDifferences are those of machines that run programs of another ABI.
var foreignDifferences = []conformance.Difference{
	{Step: `socket_no_other_way: i386 .*`, Reason: otherWay},
}

var goDifferences = []conformance.Difference{
	{Step: `go_multipath: multipath`, Reason: plainTCP},
}

var passedDifferences = []conformance.Difference{
	{Step: `pass: accept the fresh one`, Reason: "a socket connects as the application that makes the call, with its address and its labels; natively it stays on the machine where it was made"},
}
