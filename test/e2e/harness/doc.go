// Package harness runs AppSwitch as its users do, from the binaries of `make build`, on a machine of its own: a network
// namespace with one interface, a neighbour at its other end, and directories that nobody else uses.
//
// Its invariant is that a [Lab] ends with nothing left of it. When a test ends, its applications are stopped, the tables
// must become empty, the daemons must end by themselves, and then no process, listening socket, mount, control group or
// namespace may be left; whatever is left fails the test and is removed. [Main] does the same from outside for a test
// binary that crashed, timed out or was interrupted. Start reading at [New].
package harness
