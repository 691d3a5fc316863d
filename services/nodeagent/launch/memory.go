package launch

import (
	"strconv"
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

// shrink gives back the pages of the executable that starting up has touched, most of them the runtime's tables of a
// large program, nearly none of which a sleeping holder needs again; those it does are read back from the page cache.
func shrink() {
	maps, err := readFile("/proc/self/smaps")
	if err != nil {
		return // the pages stay: that is all
	}
	var start, end uint64 // of the mapping that the lines are about, if it is a candidate
	for _, line := range text.Split(string(maps), '\n') {
		// "start-end permissions offset device inode path", then lines of "Name: value kB".
		first, rest, _ := text.Cut(line, ' ')
		if text.Contains(first, '-') {
			start, end = 0, 0
			if len(rest) > 1 && rest[1] == '-' && text.Contains(rest, '/') { // not writable, and a file
				start, end = parseSpan(first)
			}
			continue
		}
		// A page that was written before it was protected, as a dynamic linker does, can't be read back.
		if first == "Anonymous:" && text.Trim(rest) == "0 kB" && end > start {
			// Not by huge pages either, which count as a whole.
			for _, advice := range []uintptr{syscall.MADV_NOHUGEPAGE, syscall.MADV_DONTNEED} {
				_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(start), uintptr(end-start), advice)
			}
		}
	}
}

func parseSpan(s string) (start, end uint64) {
	first, last, _ := text.Cut(s, '-')
	start, err := strconv.ParseUint(first, 16, 64)
	if err != nil {
		return 0, 0
	}
	if end, err = strconv.ParseUint(last, 16, 64); err != nil {
		return 0, 0
	}
	return start, end
}
