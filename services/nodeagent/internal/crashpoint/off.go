//go:build !crashpoints

package crashpoint

// Here is a mark.
func Here(Name) {}
