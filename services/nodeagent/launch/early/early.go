// Package early runs `ax run` and the holder while the program is still being initialised.
//
// It is imported for this effect alone, by the main package of the command line tool. The Go specification has
// packages initialised in the order of their import paths, each as soon as its imports are; everything that this one
// imports belongs to the standard library, so it precedes etcd, gRPC and Serf, whose initialisation would cost more
// than the whole launch. Invariant: for every other command line its init returns at once and changes nothing.
// Start reading at launch.Early.
package early

import (
	"os"

	"appswitch.io/services/nodeagent/launch"
)

func init() { launch.Early(os.Args) }
