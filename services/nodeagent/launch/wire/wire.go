// Package wire is the protocol between `ax run` (and the holder it leaves behind) and the node agent.
//
// It runs over a SOCK_SEQPACKET UNIX socket, one JSON message per packet, descriptors by SCM_RIGHTS. Invariant: an
// old launcher or holder works with a newer agent, so fields are only ever added, and [Version] grows only when that
// is not enough. It imports nothing but the standard library: `ax run` must start in milliseconds.
// Start reading at [Hello] and [Attach]; the shared journal is in journal.go.
package wire

import (
	"encoding/json"
	"fmt"
)

// Version of the protocol spoken by this build. An agent serves every version up to its own.
const Version = 1

// Limits of the protocol.
const (
	MaxMessage = 64 << 10 // bytes of one packet; longer ones are refused by both sides
	MaxFDs     = 2        // descriptors with one packet
)

// DefaultRunDir holds the agent's socket and the files that applications see, and nothing else: containers mount it,
// so it is never replaced. AX_RUN_DIR names another one.
const DefaultRunDir = "/var/run/appswitch"

// Names inside the run directory.
const (
	SocketName     = "agent.sock"  // the agent's UNIX socket
	ResolvConfName = "resolv.conf" // what an application's /etc/resolv.conf is replaced with
)

// Message is one packet in either direction; exactly one field is set.
type Message struct {
	Hello    *Hello    `json:"hello,omitempty"`    // launcher → agent: who wants to run
	Welcome  *Welcome  `json:"welcome,omitempty"`  // agent → launcher: under which identity
	Attach   *Attach   `json:"attach,omitempty"`   // launcher, holder → agent, with [listener, journal]
	Attached *Attached `json:"attached,omitempty"` // agent → launcher, holder: calls are being served
	Error    *Error    `json:"error,omitempty"`    // agent → either: refused; the connection ends
}

// Hello asks for an identity for a program that is about to run.
type Hello struct {
	Version  int               `json:"version"`
	IP       string            `json:"ip,omitempty"`     // --ip, empty if not given
	Name     string            `json:"name,omitempty"`   // --name, empty if not given
	Labels   map[string]string `json:"labels,omitempty"` // --labels; none means the default labels
	NewNetns bool              `json:"newNetns"`         // a network namespace of its own follows
	DNS      bool              `json:"dns"`              // --dns-override
	Command  []string          `json:"command"`          // program and arguments, for people; cut to 4 KiB
}

// Welcome grants the identity.
type Welcome struct {
	Version      int    `json:"version"`      // the agent's
	AppID        string `json:"appId"`        // 8 hexadecimal digits
	Token        string `json:"token"`        // secret that proves the identity when attaching
	IP           string `json:"ip"`           // the application's virtual address: goes on lo in the new namespace
	AgentTimeout int    `json:"agentTimeout"` // milliseconds for which calls wait for a dead agent
	ResolvConf   bool   `json:"resolvConf"`   // replace /etc/resolv.conf by the run directory's
	// Netns is the agent's network namespace as /proc/self/ns/net names it ("net:[4026531840]"): a launcher that may
	// not make a namespace knows by it whether it is in a container (and stays in its namespace) or on the host.
	Netns string `json:"netns,omitempty"`
}

// Attach hands over the application's system calls: descriptors [seccomp listener, journal memfd] come with it. The
// launcher sends it first; the holder sends it at once after it started (the agent then keeps the connection to see
// the holder live, and drops the duplicates) and again to every new agent.
type Attach struct {
	Version int    `json:"version"`
	AppID   string `json:"appId"`
	Token   string `json:"token"`
	PID     int    `json:"pid"`    // the program, in the sender's process-id namespace
	Holder  bool   `json:"holder"` // the sender is the holder and stays connected
	Hello   Hello  `json:"hello"`  // the first request, for an agent that has lost its state
}

// Attached confirms that the agent serves the application's calls.
type Attached struct {
	Version int `json:"version"`
}

// Error refuses a request.
type Error struct {
	Code    string `json:"code"`    // one of the Code constants
	Message string `json:"message"` // names the input and the fix
}

// Codes of an Error.
const (
	CodeInvalid     = "invalid"     // the request is wrong: don't repeat it
	CodeDenied      = "denied"      // the caller may not claim this
	CodeUnavailable = "unavailable" // the agent can't reach what it needs: try again
	CodeUnknownApp  = "unknown-app" // attach with an identity that the agent does not accept
)

func (e *Error) Error() string { return e.Message }

// Marshal encodes a message, refusing one that is too long for a packet.
func (m Message) Marshal() ([]byte, error) {
	b, err := json.Marshal(m)
	if err == nil && len(b) > MaxMessage {
		err = fmt.Errorf("message of %d bytes: at most %d", len(b), MaxMessage)
	}
	return b, err
}

// Unmarshal decodes one packet. It refuses a packet that holds no message or several.
func Unmarshal(b []byte) (Message, error) {
	var m Message
	if len(b) > MaxMessage {
		return m, fmt.Errorf("message of %d bytes: at most %d", len(b), MaxMessage)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("decode message: %w", err)
	}
	set := 0
	for _, is := range []bool{m.Hello != nil, m.Welcome != nil, m.Attach != nil, m.Attached != nil, m.Error != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return m, fmt.Errorf("decode message: %d kinds in one packet, want 1", set)
	}
	return m, nil
}
