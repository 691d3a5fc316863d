// Package zone is what the resolver knows: the names of the service table and the DNS records that they make.
//
// It is pure, without I/O, clocks or chance: the same table and question give the same answer. A [Zone] is immutable
// and read without locks; a [Builder], owned by one goroutine, takes the changes of the table and makes the next Zone
// from the last one, sharing whatever did not change, so that a change costs the same in a table of ten names and of a
// million. Invariant: a name exists exactly as long as an endpoint or a virtual service carries it.
//
// Names are looked up bare (web) and with the domain (web.appswitch.local), whatever their case; a name may have several
// labels. Answers live for [TTL] seconds, negative ones for [NegativeTTL]: addresses are virtual and hardly ever
// change, but a name that is not there yet may be there at any moment. Start reading at [Zone.Lookup].
package zone
