package crashpoint

import (
	"slices"
	"testing"
)

func TestNamesDiffer(t *testing.T) {
	all := All()
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != len(All()) {
		t.Errorf("%d names for %d crash points", n, len(All()))
	}
}
