package launch

import (
	"strconv"
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

// shrink gives back the pages of the executable that starting up has touched, most of them the runtime's tables of a
// large program, nearly none of which a sleeping holder needs again; those it does are read back from the page cache.
func shrink() {
	maps, err := readFile("/proc/self/maps")
	if err != nil {
		return // the pages stay: that is all
	}
	for _, line := range text.Split(string(maps), '\n') {
		// start-end permissions offset device inode path
		span, rest, _ := text.Cut(line, ' ')
		if len(rest) < 2 || rest[1] != '-' || !text.Contains(rest, '/') {
			continue // writable, or no file
		}
		first, last, _ := text.Cut(span, '-')
		start, err := strconv.ParseUint(first, 16, 64)
		if err != nil {
			continue
		}
		end, err := strconv.ParseUint(last, 16, 64)
		if err != nil || end <= start {
			continue
		}
		_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(start), uintptr(end-start), syscall.MADV_DONTNEED)
	}
}
