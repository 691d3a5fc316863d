// Package bench compares programs as they are with the same programs under `ax run`.
//
// Its invariant: both sides of a comparison run on the same machine of package harness, in turn, and the median of the
// rounds counts, so that noise meets both. It prints one table; the limits in it are goals, and a machine that is busy
// otherwise may miss them. `make bench` runs it. Start reading at bench_test.go.
package bench
