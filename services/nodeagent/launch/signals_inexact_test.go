//go:build !exactsignals

package launch_test

const exactSignals = false
