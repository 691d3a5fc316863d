// Package ax is the vocabulary of AppSwitch: applications, endpoints, virtual services, labels, flows and decisions.
//
// It is pure: values without I/O, safe to copy and to compare, and it imports nothing but the standard library.
// All addresses are unmapped (an IPv4 address is never carried as IPv4-mapped IPv6); Validate methods enforce it.
// Start reading at [Endpoint] and [Decision].
package ax
