// Package early carries out `ax run` while the program is still being initialised.
//
// It is imported for this effect alone, by the main package of the command line tool: the packages of etcd, gRPC and
// Serf take longer to initialise than the whole launch. Nearly every launch, and every holder, has ended in the init
// of package fast; what comes here needs os/signal, to stay as the program's parent. Invariant: any other command
// line finds that nothing has happened. Start reading at launch.Early.
package early

import (
	"os"
	"os/signal"
	"syscall"

	"appswitch.io/services/nodeagent/launch"
	_ "appswitch.io/services/nodeagent/launch/fast" // its init comes first
)

func init() {
	if s := launch.Late(os.Args); s != nil {
		os.Exit(supervise(s))
	}
}

// maxSignals waiting to be forwarded; the kernel merges signals of one kind, too.
const maxSignals = 64

func supervise(s *launch.Supervision) int {
	arrived := make(chan os.Signal, maxSignals)
	for _, n := range launch.Forwarded {
		if !signal.Ignored(n) {
			signal.Notify(arrived, n)
		}
	}
	forward := make(chan syscall.Signal)
	go func() {
		for n := range arrived {
			if n, ok := n.(syscall.Signal); ok {
				forward <- n
			}
		}
	}()
	return s.Run(forward)
}
