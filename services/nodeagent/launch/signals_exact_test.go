//go:build exactsignals

package launch_test

// Builds that can read what the runtime found keep everything.
const exactSignals = true
