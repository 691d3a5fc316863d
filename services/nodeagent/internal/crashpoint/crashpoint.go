// Package crashpoint marks the instants at which a crash of the agent would be awkward, so that tests can make one happen
// there. In an ordinary build a mark is nothing; built with the tag crashpoints, the process kills itself with SIGKILL at
// the one that APPSWITCH_CRASH_AT names, the first time or, with NAME:N, the Nth.
//
// Invariant: marks stand on the path of every call of their kind, and only there. Start reading at [Here].
package crashpoint

// Name is where a crash happens. After means that nothing but the mark stands between.
type Name string

// The crash points of the user driver, in the order in which a server and its client pass them.
const (
	SocketMade       Name = "socket-made"       // after the socket is entered in the table
	SocketInstalled  Name = "socket-installed"  // after the caller has it, before it knows
	BindEntered      Name = "bind-entered"      // after the virtual address is entered
	BindBound        Name = "bind-bound"        // after the real bind
	ListenListening  Name = "listen-listening"  // after the real listen
	ConnectIntended  Name = "connect-intended"  // before the real connect
	ConnectBegun     Name = "connect-begun"     // after the real connect
	ConnectRecorded  Name = "connect-recorded"  // after its addresses are entered
	AcceptTaken      Name = "accept-taken"      // after the connection is taken from the kernel
	AcceptInstalled  Name = "accept-installed"  // after the caller has it, before it knows
	AcceptSettled    Name = "accept-settled"    // after the holder has let it go
	AnswerGiven      Name = "answer-given"      // after the answer, before the journal knows
	NameShown        Name = "name-shown"        // after getsockname has written its answer
	DatagramReceived Name = "datagram-received" // after a datagram is in the caller's memory
)

// All lists them.
func All() []Name {
	return []Name{
		SocketMade, SocketInstalled, BindEntered, BindBound, ListenListening, ConnectIntended, ConnectBegun, ConnectRecorded,
		AcceptTaken, AcceptInstalled, AcceptSettled, AnswerGiven, NameShown, DatagramReceived,
	}
}
