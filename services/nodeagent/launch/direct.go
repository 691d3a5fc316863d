package launch

import (
	"errors"
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/options"
	"appswitch.io/services/nodeagent/launch/wire"
)

// direct is the backend that talks to the agent itself and leaves a holder behind.
type direct struct {
	agent   *agent
	request wire.Hello
	welcome *wire.Welcome
}

func newDirect(o options.Run) *direct {
	return &direct{agent: newAgent(o.RunDir), request: wire.Hello{
		Version: wire.Version, IP: o.IP, Name: o.Name, Labels: o.Labels,
		NewNetns: o.NewNetns, DNS: o.DNSOverride, Command: cutCommand(o.Command), Health: o.Health,
	}}
}

func (d *direct) plan() (*wire.Welcome, error) {
	w, err := d.agent.hello(&d.request)
	if err != nil {
		return nil, err
	}
	d.welcome = w
	return w, nil
}

func (d *direct) attach(h handed) error {
	state, err := d.register(h, syscall.Getpid())
	if err != nil {
		return err
	}
	defer closeAll(state.kept)
	return forkHolder(state, h.listener, h.journal)
}

// register hands a program's calls over to the agent and returns what its holder must know.
func (d *direct) register(h handed, pid int) (holderState, error) {
	d.request.NewNetns, d.request.UDPFrom = h.newNetns, h.udpFrom // the former not what was asked for, in a container
	for range maxIdentities {
		at := wire.Attach{Version: wire.Version, AppID: d.welcome.AppID, Token: d.welcome.Token, PID: pid, Hello: d.request}
		kept, err := d.agent.attach(&at, []int{h.listener, h.journal})
		var refusal *wire.Error
		if err == nil || !errors.As(err, &refusal) || refusal.Code != wire.CodeUnknownApp {
			return holderState{runDir: d.agent.dir, timeout: d.welcome.AgentTimeout, attach: at, kept: kept}, err
		}
		// The agent was restarted since it said welcome, and has forgotten.
		address := d.welcome.IP
		if _, err := d.plan(); err != nil {
			return holderState{}, err
		}
		if d.welcome.IP != address {
			return holderState{}, text.Error("the agent was restarted meanwhile and gave another address, ",
				d.welcome.IP, " instead of ", address, ": run the program again")
		}
	}
	return holderState{}, text.Error("the agent at ", d.agent.path(), " keeps forgetting the program: is it crashing?")
}

const maxIdentities = 5 // asked for in one launch

// relinquish has nothing to give up: what privileges there are came with the command line.
func (d *direct) relinquish() error { return nil }

func (d *direct) close() { d.agent.close() }
