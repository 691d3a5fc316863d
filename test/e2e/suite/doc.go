// Package suite compares what a test suite says of itself in two places: on a machine as it is, and under `ax run`.
//
// It is pure: the output of a suite in, results and differences out. Its invariant: a test that passes natively and not
// under AppSwitch is a difference, and a difference is either in the suite's table, with its reason, or an error; so is an
// entry of the table that no longer says anything. Start reading at [Compare].
package suite
