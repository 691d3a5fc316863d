// Package dnssrv is the DNS server: UDP and TCP, a chain of handlers, a cache and forwarding.
//
// A query passes through the handlers names (the service table), gate (who may have queries forwarded, and which),
// cache and forward; each answers it or leaves it to the next. All but the last never wait and run in the goroutine
// that read the packet, so that names of the table cost two system calls and no goroutine; the last, which waits for
// other servers, runs in one of at most MaxWaiting goroutines. Invariants: whatever bytes arrive, the server neither
// fails nor answers what is itself an answer; every wait ends; nobody but those whom Config.MayForward admits makes
// this server ask another. Start reading at [Server.Run] and [Handler].
package dnssrv
