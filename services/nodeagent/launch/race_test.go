//go:build race

package launch_test

// maxHolderKB is what a holder may weigh; the race detector's shadow memory comes on top.
const maxHolderKB = 64 << 10
