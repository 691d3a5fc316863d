//go:build exactsignals

package launch

import _ "unsafe" // for go:linkname

// The runtime keeps what it found, and tells nobody. These two variables of it are read in builds that allow it:
//
//	go build -tags exactsignals -ldflags=-checklinkname=0
//
// Other builds start programs with the signals that Go takes over at their default, and unblocked.

//go:linkname runtimeFwdSig runtime.fwdSig
var runtimeFwdSig [65]uintptr // the handlers

//go:linkname runtimeInitSigmask runtime.initSigmask
var runtimeInitSigmask [2]uint32

func init() {
	inheritedSignals = func() (ignored, blocked uint64) {
		for n := 1; n <= signals; n++ {
			if runtimeFwdSig[n] == sigIgnore {
				ignored |= 1 << (n - 1)
			}
		}
		return ignored, uint64(runtimeInitSigmask[0]) | uint64(runtimeInitSigmask[1])<<32
	}
}
