// Package rpc builds every gRPC server and client of AppSwitch, so that all of them have the same transport security,
// health, reflection, metrics, traces, limits, errors and shutdown.
//
// Its invariant: nothing waits for ever. Calls without a deadline get one, lost connections are retried at least once
// a second, and a server that is told to stop has stopped after [StopTimeout]. Start reading at [NewServer], [Serve]
// and [Dial]; [Pipe] connects services that share a process.
package rpc

import "time"

// Limits of servers and clients.
const (
	MaxMessageBytes  = 4 << 20  // of one message, in either direction
	MaxMetadataBytes = 16 << 10 // of one call's metadata
	MaxStreams       = 1024     // calls in flight on one connection; more wait at the client
	MaxConnections   = 4096     // to one listener; more wait in the kernel's backlog

	ConnectTimeout  = 2 * time.Second       // for one attempt to connect, handshake included
	MaxReconnect    = time.Second           // longest pause between attempts to connect
	firstReconnect  = 50 * time.Millisecond // shortest
	CallTimeout     = 10 * time.Second      // for a unary call whose context has no deadline
	keepaliveAfter  = 10 * time.Second      // of silence, a ping asks whether the peer is there
	keepaliveWait   = 3 * time.Second       // for the answer; then the connection is closed
	keepaliveMinGap = 5 * time.Second       // clients that ping more often are disconnected
	StopTimeout     = 2 * time.Second       // for calls to end when a server stops; then they are cut off
	readyEvery      = 20 * time.Millisecond // between looks at whether a server is ready
	pipeBuffer      = 256 << 10             // bytes in flight of one connection within the process
	pipeNetwork     = "bufconn"             // what such a connection calls its network
)
