// Package e2e holds the tests of the whole system: real programs, run with the binaries that `make build` made, on
// machines made by package harness.
//
// Its invariant: a test sees what a user sees (the command line, REST, DNS, sockets) and nothing of the code. The build
// tag e2e keeps these tests apart: they need root, and they need the machine for themselves. Start reading at
// servers_test.go.
package e2e
