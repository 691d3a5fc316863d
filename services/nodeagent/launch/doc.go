// Package launch is `ax run`: it turns the process it is called in into the program, with the node agent behind its
// network calls, and leaves a holder process that keeps both together when the agent restarts.
//
// Invariant: the program is exec'd in place and finds what it would have found without `ax run` (process id,
// descriptors, working directory, environment, signals, no unknown child), except for its network namespace, its
// resolv.conf and the seccomp filter. It imports the standard library only, and little of it, because `ax run true`
// may cost at most 8 ms over `true`: package early runs it before the rest of the binary is initialised.
// Start reading at [Early] and run.go; holder.go is what stays behind, supervise.go is for --init and for users
// without privileges, where a parent is unavoidable.
package launch
