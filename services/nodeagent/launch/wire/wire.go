// Package wire is the protocol between `ax run` (and the holder it leaves behind) and the node agent.
//
// It runs over a SOCK_SEQPACKET UNIX socket, one [Message] per packet (encoding: codec.go), descriptors by SCM_RIGHTS.
// Invariant: an old launcher or holder works with a newer agent, so fields are only ever added, field numbers are
// never used again, and [Version] grows only when that is not enough. It imports next to nothing: `ax run` must start
// in milliseconds.
// Start reading at [Hello] and [Attach]; the shared journal is in journal.go.
package wire

import (
	"errors"
	"strconv"
)

// Version of the protocol spoken by this build. An agent serves every version up to its own.
const Version = 1

// Limits of the protocol.
const (
	MaxMessage = 64 << 10 // bytes of one packet; longer ones are refused by both sides
	HandedFDs  = 2        // descriptors with an Attach: [listener, journal]
	MaxKept    = 4        // further ones, that the holder keeps for the agents
	MaxFDs     = HandedFDs + MaxKept

	VaultPlaces = 64 // files in the holder's ring
)

// DefaultRunDir holds the agent's socket and the files that applications see, and nothing else: containers mount it,
// so it is never replaced. AX_RUN_DIR names another one.
const DefaultRunDir = "/var/run/appswitch"

// Names inside the run directory.
const (
	SocketName     = "agent.sock"  // the agent's UNIX socket
	ResolvConfName = "resolv.conf" // what an application's /etc/resolv.conf is replaced with
)

// Message is one packet in either direction; exactly one field is set. The JSON names of the types below are those of
// the agent's saved state.
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
	// Health says how the program wants its services checked, as --health-* do: "check=http:/healthz", "interval=5s".
	Health []string `json:"health,omitempty"`
	// UDPFrom is the first of the descriptor numbers that UDP sockets get (package filter); 0, from a launcher that knows
	// nothing of this, if they may have any: its filter stops the sendmsg family on every socket.
	UDPFrom int `json:"udpFrom,omitempty"`
}

// Welcome grants the identity.
type Welcome struct {
	Version      int    `json:"version"`      // the agent's
	AppID        string `json:"appId"`        // 8 hexadecimal digits
	Token        string `json:"token"`        // secret that proves the identity when attaching
	IP           string `json:"ip"`           // the application's virtual address: goes on lo in the new namespace
	AgentTimeout int    `json:"agentTimeout"` // milliseconds for which calls wait for a dead agent
	ResolvConf   bool   `json:"resolvConf"`   // replace /etc/resolv.conf by the run directory's
	// Second is the address that the program has besides IP, if any: an IPv6 one goes with the IPv4 address that it would
	// have had without.
	Second string `json:"second,omitempty"`
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
	// Ring is the holder's descriptor of an io_uring with VaultPlaces places for files; 0 is none. UNIX sockets don't carry
	// those, so the agent fetches it (pidfd_getfd). What the agent puts there, and has not taken out when it dies, the
	// holder sends into transit (Attached).
	Ring int `json:"ring,omitempty"`
}

// Attached confirms that the agent serves the application's calls. It may come with descriptors, at most MaxKept: the holder
// keeps them, whatever they are, and hands them to the next agent after [listener, journal]. They are what
// the agent wants to have survive itself. The first is where the holder sends what an agent has left in its ring: one
// packet of one byte for each file, the file with it.
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
	b := encode(&m)
	if len(b) > MaxMessage {
		return nil, tooLong(len(b))
	}
	return b, nil
}

// Unmarshal decodes one packet. It refuses a packet that holds no message or several.
func Unmarshal(b []byte) (Message, error) {
	var m Message
	if len(b) > MaxMessage {
		return m, tooLong(len(b))
	}
	if err := decode(b, &m); err != nil {
		return m, err
	}
	set := 0
	for _, is := range []bool{m.Hello != nil, m.Welcome != nil, m.Attach != nil, m.Attached != nil, m.Error != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return m, errors.New("decode message: " + strconv.Itoa(set) + " kinds in one packet, want 1")
	}
	return m, nil
}

func (m *Message) fields(c *codec) {
	optional(c, 1, &m.Hello)
	optional(c, 2, &m.Welcome)
	optional(c, 3, &m.Attach)
	optional(c, 4, &m.Attached)
	optional(c, 5, &m.Error)
}

func (h *Hello) fields(c *codec) {
	c.number(1, &h.Version)
	c.text(2, &h.IP)
	c.text(3, &h.Name)
	c.pairs(4, &h.Labels)
	c.truth(5, &h.NewNetns)
	c.truth(6, &h.DNS)
	c.texts(7, &h.Command)
	c.texts(20, &h.Health)
	c.number(30, &h.UDPFrom)
}

func (w *Welcome) fields(c *codec) {
	c.number(1, &w.Version)
	c.text(2, &w.AppID)
	c.text(3, &w.Token)
	c.text(4, &w.IP)
	c.number(5, &w.AgentTimeout)
	c.truth(6, &w.ResolvConf)
	c.text(7, &w.Netns)
	c.text(8, &w.Second)
}

func (a *Attach) fields(c *codec) {
	c.number(1, &a.Version)
	c.text(2, &a.AppID)
	c.text(3, &a.Token)
	c.number(4, &a.PID)
	c.truth(5, &a.Holder)
	c.nested(6, &a.Hello)
	c.number(7, &a.Ring)
}

func (a *Attached) fields(c *codec) { c.number(1, &a.Version) }

func (e *Error) fields(c *codec) {
	c.text(1, &e.Code)
	c.text(2, &e.Message)
}
