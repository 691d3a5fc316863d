//go:build exactsignals

package launch

import (
	"sync/atomic"
	"syscall"
	_ "unsafe" // for go:linkname
)

// syscallOrigRlimitNofile is kept by package syscall, as signals_exact.go has it of the runtime; nil if the limit was not
// raised.
//
//go:linkname syscallOrigRlimitNofile syscall.origRlimitNofile
var syscallOrigRlimitNofile atomic.Pointer[syscall.Rlimit]

func init() {
	inheritedFileLimit = func() (uint64, bool) {
		if limit := syscallOrigRlimitNofile.Load(); limit != nil {
			return limit.Cur, true
		}
		return 0, false
	}
}
