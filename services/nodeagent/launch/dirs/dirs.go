// Package dirs says where the daemon of a user has its directories: root's in the system's places, anybody else's in those
// of the XDG base directory specification.
//
// Invariant: it looks at nothing by itself, and imports next to nothing, because `ax run` has milliseconds to start. The
// daemon and the commands that look for it use the same functions. Start reading at [Run] and [Find].
package dirs

import (
	"strconv"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/wire"
)

// Root's.
const (
	rootState      = "/var/lib/appswitch"
	rootAgentState = "/run/appswitch-agent"
)

// User is what the directories depend on.
type User struct {
	UID    int // effective
	Getenv func(string) string
	Exists func(path string) bool
}

// runtime is the directory for what lasts as long as the user's session, "" if there is none. It is the system's: nobody
// else can have made it.
func (u User) runtime() string {
	if dir := u.Getenv("XDG_RUNTIME_DIR"); absolute(dir) {
		return dir
	}
	if dir := text.Join("/run/user/", strconv.Itoa(u.UID)); u.Exists(dir) {
		return dir
	}
	return ""
}

// Run returns the directory of the socket of the user's own daemon. Without a runtime directory it is with what the daemon
// keeps; "" if there is no home directory either.
func (u User) Run() string {
	if u.UID == 0 {
		return wire.DefaultRunDir
	}
	if dir := u.runtime(); dir != "" {
		return text.Join(dir, "/appswitch")
	}
	return below(u.State(), "/run")
}

// Find returns the directory of the daemon that serves the user: that of AX_RUN_DIR; the user's own if there is one; root's.
func (u User) Find() string {
	if dir := u.Getenv("AX_RUN_DIR"); dir != "" {
		return dir
	}
	if dir := u.Run(); dir != "" && u.Exists(text.Join(dir, "/", wire.SocketName)) {
		return dir
	}
	return wire.DefaultRunDir
}

// State returns the directory of what the user's daemon keeps, "" if there is no home directory.
func (u User) State() string {
	if u.UID == 0 {
		return rootState
	}
	if dir := u.Getenv("XDG_STATE_HOME"); absolute(dir) {
		return text.Join(dir, "/appswitch")
	}
	if home := u.Getenv("HOME"); absolute(home) {
		return text.Join(home, "/.local/state/appswitch")
	}
	return ""
}

// AgentState returns the directory of what the user's agent keeps until the machine is restarted.
func (u User) AgentState() string {
	if u.UID == 0 {
		return rootAgentState
	}
	if dir := u.runtime(); dir != "" {
		return text.Join(dir, "/appswitch-agent")
	}
	return below(u.State(), "/agent")
}

func absolute(path string) bool { return text.HasPrefix(path, "/") }

// below returns a directory in one that may not be known.
func below(dir, name string) string {
	if dir == "" {
		return ""
	}
	return text.Join(dir, name)
}
