// Package fast runs `ax run` and the holder before nearly everything else in the program is initialised.
//
// The Go specification has packages initialised in the order of their import paths, each as soon as its imports are.
// All that this package imports is initialised within a millisecond of the start, and "appswitch.io" precedes
// "github.com" and "google.golang.org", so its init comes before that of any package of etcd, gRPC or Serf, and before
// os, fmt, strings and reflect of the standard library. Invariant: no import that waits for those; a test of the
// command line tool checks the order. Import package early, which imports this one.
package fast

import "appswitch.io/services/nodeagent/launch"

func init() { launch.Fast() }
