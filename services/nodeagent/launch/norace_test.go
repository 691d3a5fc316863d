//go:build !race

package launch_test

// maxHolderKB is what a holder may weigh.
const maxHolderKB = 5 << 10
